import json

import pytest
from made_up_targets import SPEC, make_store, row, tubelets

from mme_core import cli
from mme_core.store.writer import ShardWriter
from preprocess.summary import describe_spec


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = make_store(tmp_path_factory.mktemp("store") / "s", [{"a": 11, "b": 3}])
    with ShardWriter(path, 1, SPEC) as writer:
        writer.quarantine({"id": "q", "path": "q", "label": 0, "reason": "1 frame"})
        writer.begin_video()
        writer.append(tubelets(0, 1)[0])
        writer.end_video(row("c\udcff", 1, label=-1, fps=0.0, warnings=["3 broken packets"]))
    return path


def test_json_holds_everything(store, capsys):
    assert cli.main(["info", str(store), "--json", "--videos", "1"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["videos"] == 3 and about["tubelets"] == 15 and about["shards"] == 2
    assert about["quarantined"] == {"1 frame": 1} and about["with_warnings"] == 1
    assert about["tubelets_per_video"] == {"least": 1, "median": 3, "most": 11}
    assert about["canvases"] == {"4×5": 3}
    assert about["classes"] == {"x": 2, "y": 0, "(none)": 1}
    assert about["frames"] == 85 + 21 + 5
    assert about["hours"] == pytest.approx((85 + 21) / 25 / 3600)
    files = [path for path in store.rglob("shape/*") if path.is_file()]
    assert about["bytes"]["shape"] == sum(path.stat().st_size for path in files)
    assert about["spec"] == SPEC.to_dict() and about["spec_hash"] == SPEC.hash
    assert [video["id"] for video in about["rows"]] == ["a"]


def test_plain_text_without_a_terminal(store, capsys):
    assert cli.main(["info", str(store), "--videos", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 stored, 1 quarantined, 1 with warnings" in next(x for x in lines if "videos" in x)
    assert lines[-4].split("\t")[:3] == ["id", "label", "count"]
    assert lines[-3].split("\t")[:3] == ["a", "0", "11"]
    assert lines[-1].startswith("c\\udcff\t-1") and lines[-1].endswith("3 broken packets")
    assert not any("\x1b" in line for line in lines)
    assert describe_spec(SPEC) in next(line for line in lines if line.startswith("spec "))


def test_equal_lengths_are_told_once(store, tmp_path, capsys):
    assert cli.main(["info", str(store)]) == 0
    assert "15; a video has 1 to 11, median 3\n" in capsys.readouterr().out
    equal = make_store(tmp_path / "equal", [{"a": 3, "b": 3}])
    assert cli.main(["info", str(equal)]) == 0
    assert "6; a video has 3\n" in capsys.readouterr().out


def test_a_table_on_a_terminal(store, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["info", str(store), "--videos", "2"]) == 0
    out = capsys.readouterr().out
    assert "┏" in out and "\x1b[1m" in out and "1 quarantined" in out


def test_a_store_behind_a_url_is_described(tmp_path, capsys):
    url = make_store(f"memory://{tmp_path}/s", [{"a": 2}])
    assert cli.main(["info", url, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["videos"] == 1 and about["bytes"]["shape"] > 0 and about["unfinished"] == []


def test_no_store(tmp_path, capsys):
    assert cli.main(["info", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert cli.main(["info", str(tmp_path), "--videos", "-1"]) == 2


def test_a_video_that_was_tried_again_counts_once(tmp_path, capsys):
    path = make_store(tmp_path / "s", [{"a": 2}])
    for shard, reason in ((1, "1 frame"), (2, "moov atom not found")):
        with ShardWriter(path, shard, SPEC) as writer:
            for name in ("again", "later"):
                writer.quarantine({"id": name, "path": name, "label": 0, "reason": reason})
    with ShardWriter(path, 3, SPEC) as writer:
        writer.begin_video()
        writer.append(tubelets(0, 1)[0])
        writer.end_video(row("later", 1))
    assert cli.main(["info", str(path), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["videos"] == 2 and about["quarantined"] == {"moov atom not found": 1}
