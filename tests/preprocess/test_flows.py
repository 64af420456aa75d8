"""`mme flows` without Ray: a first run on good and bad input."""

import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from flows_command import flows, ledger
from small_files import SPEC, write_clip, write_tree

from mme_core.cli import main as mme
from mme_core.store import TargetStore


def test_frames_in_lz4_differ_from_jpeg_in_their_coding_alone(videos, tmp_path):
    urls = [tmp_path / "jpeg", tmp_path / "lz4"]
    for url in urls:
        assert flows(videos, url, f"spec.frames={url.name}", "--keep-flow") == 0
        assert mme(["verify", str(url), "--deep"]) == 0
    jpeg, lz4 = (TargetStore(url).read_coded(0, 0, 2) for url in urls)
    np.testing.assert_array_equal(jpeg.position, lz4.position)
    assert jpeg.frames[0][:2] == b"\xff\xd8" and lz4.frames[0][:4] == b"I420"
    apart = jpeg.decode_frames().astype(int) - lz4.decode_frames()
    assert np.abs(apart).mean() < 6
    words = ["retarget", str(urls[1]), "--store", str(tmp_path / "short"), "--serial"]
    assert mme([*words, "spec.length=2"]) == 0
    assert TargetStore(tmp_path / "short").read_coded(0, 0, 2).frames == lz4.frames


def ruin(root):
    """Makes a file of each kind of bad input. Returns {name: reason in the ledger}."""
    good = write_clip(root / "good/ü ñ – x y.mp4")
    shutil.copy(good, root / "good/-dash.mp4")
    shutil.copy(good, root / "good" / os.fsdecode(b"latin\xe9.mp4"))
    write_clip(root / "good/32x32.mp4", height=32, width=32)
    write_clip(root / "good/odd.mp4", height=322, width=242)
    write_clip(root / "good/wide.mp4", height=16, width=1000)
    bad = root / "bad"
    bad.mkdir()
    (bad / "empty.mp4").write_bytes(b"")
    (bad / "text.mp4").write_text("not a video at all\n" * 100)
    (bad / "cut.mp4").write_bytes(good.read_bytes()[:700])
    write_clip(bad / "one.mp4", frames=1)
    write_clip(bad / "three.mp4", frames=3)
    (bad / "folder.mp4").mkdir()
    (bad / "link.mp4").symlink_to(bad / "nowhere.mp4")
    (root / "README").write_text("not in the ledger")
    return {
        **{f"good/{path.name}": "ok" for path in (root / "good").iterdir()},
        "bad/empty.mp4": "the file is empty",
        "bad/text.mp4": "truncated or not a video",
        "bad/cut.mp4": "truncated or not a video",
        "bad/one.mp4": "1 frame: too short",
        "bad/three.mp4": "3 frames: too short",
        "bad/folder.mp4": "is a folder",
        "bad/link.mp4": "no such file",
    }


def test_every_file_is_stored_or_quarantined(tmp_path, capsys):
    expected = ruin(tmp_path / "videos")
    assert flows(tmp_path / "videos", tmp_path / "store") == 0
    found = ledger(tmp_path / "store")
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name], name
    stored = TargetStore(tmp_path / "store").videos
    assert set(stored["id"]) == {name for name, reason in expected.items() if reason == "ok"}
    output = capsys.readouterr().out
    assert "13 videos" in output
    assert "stored       6 videos" in output
    assert "quarantined  7 videos" in output
    assert "1 × the file is empty  (bad/empty.mp4)" in output


def test_unreadable_file(videos, tmp_path, monkeypatch):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    (videos / "a/000.mp4").chmod(0)
    assert flows(videos, tmp_path / "store") == 0
    assert ledger(tmp_path / "store")["a/000.mp4"] == "permission denied"


def test_run_stops_after_max_failures(videos, tmp_path, capsys):
    store = tmp_path / "store"
    for name in ("a/000.mp4", "a/002.mp4", "b/001.mp4"):
        (videos / name).write_bytes(b"")
    assert flows(videos, store, "--max-failures", 1) == 3
    assert "2 quarantined videos, more than --max-failures 1" in capsys.readouterr().err
    assert len(ledger(store)) == 2  # it stopped there
    assert flows(videos, store, "--max-failures", 1) == 3
    assert len(ledger(store)) == 2
    assert flows(videos, store, "--max-failures", 3) == 0
    assert len(ledger(store)) == 4
    (videos / "a/002.mp4").write_bytes((videos / "b/003.mp4").read_bytes())
    assert flows(videos, store, "--max-failures", 2, "--retry-quarantined") == 0


def test_dry_run_writes_nothing(videos, tmp_path, capsys):
    assert flows(videos, tmp_path / "store", "--dry-run", "--fraction", 0.5) == 0
    assert "4 videos, 2 of them chosen" in capsys.readouterr().out
    assert flows(tmp_path / "demo", tmp_path / "store", "--dry-run", dataset="demo") == 0
    assert "to do        100 videos in 10 shards of 10" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


TRACKER = """
import numpy as np

def track(frames, queries):
    steps = np.arange(len(frames), dtype=np.float32)[:, None, None]
    visible = np.ones((len(frames), len(queries)), bool)
    visible[1, 0] = False
    return queries + steps * np.float32((0.5, 0.25)), visible
"""


def test_a_point_tracker_of_the_current_folder_fills_the_store(videos, tmp_path, monkeypatch):
    (tmp_path / "my_tracker.py").write_text(TRACKER)
    monkeypatch.chdir(tmp_path)
    assert flows(videos, tmp_path / "store", "spec.tracks=my_tracker:track", "--limit", "1") == 0
    window = TargetStore(tmp_path / "store").read(0, 0, 1)
    assert np.allclose(window.displacement[0], (0.5, 0.25), atol=1e-3)
    assert not window.valid[0, 0, 0, 0] and window.valid[0].sum() == window.valid[0].size - 1


WRONG_FUNCTIONS = {
    "no module": (
        ["spec.flow=nowhere:flow"],
        "nowhere:flow cannot be imported",
    ),
    "no function": (["spec.tracks=my_tracker:trak"], "has no attribute 'trak'"),
    "broken module": (["spec.flow=broken:flow"], "spec.flow=broken:flow cannot be loaded"),
    "no weights": (["spec.flow=raft-small", "spec.flow_weights=no.pt"], "no.pt: no such file"),
    "no flow": (["spec.tracks=my_tracker:track", "--keep-flow"], "spec.tracks computes no flow"),
}


@pytest.mark.parametrize("case", WRONG_FUNCTIONS)
def test_function_that_cannot_be_loaded_leaves_no_store(case, tmp_path, monkeypatch, capsys):
    words, message = WRONG_FUNCTIONS[case]
    (tmp_path / "my_tracker.py").write_text(TRACKER)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "videos" / "a" / "a.mp4")
    assert flows("videos", tmp_path / "store", *words, spec=SPEC[:-1]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store" / "store.json").exists()


@pytest.mark.parametrize("name", ["flows", "retarget"])
def test_sigterm_during_a_ray_call_exits_143(name, tmp_path, monkeypatch):
    """Ray changes the status of an exit inside a signal handler to 1."""

    def interrupted(arguments):
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            sys.exit(1)

    monkeypatch.setattr(f"preprocess.{name}._{name}", interrupted)
    words = {"flows": ["--dataset", "folder"], "retarget": ["source"]}[name]
    assert mme([name, *words, "--store", str(tmp_path / "store")]) == 143


def test_list_with_a_missing_file(videos, tmp_path):
    (tmp_path / "list.csv").write_text("a/000.mp4 1\nb/001.mp4 0\nb/gone.mp4 0\n")
    arguments = ["--list", tmp_path / "list.csv"]
    assert flows(videos, tmp_path / "store", *arguments, dataset="csv") == 0
    found = ledger(tmp_path / "store")
    assert found == {"a/000.mp4": "ok", "b/001.mp4": "ok", "b/gone.mp4": "no such file"}
    assert list(TargetStore(tmp_path / "store").videos["label"]) == [1, 0]


def test_store_behind_a_url(videos, tmp_path):
    assert flows(videos, f"file://{tmp_path}/store") == 0
    assert len(TargetStore(f"file://{tmp_path}/store").videos) == 4
    assert len(ledger(tmp_path / "store")) == 4


def test_names_that_look_like_markup(tmp_path, capsys):
    root = tmp_path / "set[v1]"
    write_clip(root / "a[" / "b].mp4")
    (root / "[red]\x1b[31m.mp4").write_bytes(b"no video")
    words = ["--dataset", "folder", "--root", str(root), "--store", str(tmp_path / "store[v2]")]
    assert mme(["flows", "--serial", *words, *SPEC]) == 0
    out = capsys.readouterr().out
    assert "set[v1]: 2 videos" in out and "store[v2] (new)" in out
    assert "[red]\\x1b[31m.mp4" in out and "\x1b" not in out


# Servers. Nothing listens at port 9 of this machine.

DEAD = "http://127.0.0.1:9/{}.mp4"


def flows_of_list(tmp_path, paths, *words):
    (tmp_path / "l.csv").write_text("".join(f"{path} 0\n" for path in paths))
    words = ["--dataset", "csv", "--root", str(tmp_path / "l.csv"), "--serial", *words, *SPEC]
    return mme(["flows", "--store", str(tmp_path / "store"), *words])


@pytest.mark.parametrize("size", ["1", "2", "9"])
def test_dead_server_ends_the_run(tmp_path, capsys, size):
    """No video is quarantined, even if most videos are elsewhere."""
    write_tree(tmp_path / "videos", 3)
    paths = [*sorted((tmp_path / "videos").rglob("*.mp4")), DEAD.format(1), DEAD.format(2)]
    assert flows_of_list(tmp_path, paths, "--videos-per-shard", size) == 1
    error = capsys.readouterr().err
    assert "mme flows: http://127.0.0.1:9/" in error.splitlines()[-1]
    ledger = tmp_path / "store" / "ledger.jsonl"
    assert not ledger.exists() or "quarantined" not in ledger.read_text()


@pytest.mark.parametrize("bad", [DEAD.format("x"), "nowhere://x/y.mp4", "http://[bad/x.mp4"])
def test_one_bad_url_does_not_end_the_run(tmp_path, bad):
    write_tree(tmp_path / "videos", 3)
    paths = [*(tmp_path / "videos").rglob("*.mp4"), bad]
    assert flows_of_list(tmp_path, paths) == 0
    rows = map(json.loads, (tmp_path / "store" / "ledger.jsonl").read_text().splitlines())
    status = {row["path"]: row["status"] for row in rows}
    assert [path for path, word in status.items() if word == "quarantined"] == [bad]
