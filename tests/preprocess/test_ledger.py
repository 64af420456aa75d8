"""The ledger follows the shards, and keeps what they do not hold."""

import json
import shutil
from dataclasses import replace

import pytest
from small_files import SPEC, write_tree

from mme_core.cli import main as mme
from mme_core.extract.stages import STAGES
from mme_core.io.place import LocalPlace, open_place
from mme_core.spec import TargetSpec
from mme_core.store.layout import LEDGER
from preprocess.jobs import OK, QUARANTINED, Outcome
from preprocess.ledger import Ledger, _encode, read_row, read_rows
from preprocess.progress import Display

STAGES_S = {name: 9 * place / 1000 for place, name in enumerate(STAGES)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Four videos in two shards. The last one is quarantined."""
    top = tmp_path_factory.mktemp("ledger")
    root = write_tree(top / "videos", 3, ("a",))
    (root / "a/003.mp4").write_bytes(b"")
    arguments = ["--root", str(root), "--store", str(top / "store"), "--videos-per-shard", "2"]
    assert mme(["flows", "--dataset", "folder", "--serial", *arguments, *SPEC]) == 0
    return top


@pytest.fixture
def store(finished, tmp_path):
    return open_place(shutil.copytree(finished / "store", tmp_path / "store"))


def load(place, root="/videos"):
    return Ledger.load(place, TargetSpec.from_overrides(SPEC).hash, root)


def test_file_and_shards_agree(store):
    rows = [json.loads(line) for line in store.read(LEDGER).splitlines()]
    assert [row["id"] for row in rows] == [f"a/{number:03d}.mp4" for number in range(4)]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "quarantined"]
    assert rows[3]["reason"] == "the file is empty"
    assert all(row["seconds"] >= 0 and row["path"].endswith(row["id"]) for row in rows)
    assert all(list(row["stages"]) == list(STAGES) for row in rows)
    assert all(0 < sum(row["stages"].values()) <= row["seconds"] + 0.003 for row in rows[:3])
    ledger = load(store)
    assert not ledger.stale
    assert ledger.shards == {0, 1}


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_truncated_ledger_is_rebuilt_from_the_shards(store, kept):
    before = {row.id: row for row in load(store)}
    lines = store.read(LEDGER).splitlines(keepends=True)
    store.write(LEDGER, b"".join(lines[:kept]) + lines[kept][:30])
    ledger = load(store)
    assert ledger.stale
    for number, row in enumerate(sorted(ledger, key=lambda row: row.id)):
        known = before[row.id]
        assert (row.status, row.reason, row.frames) == (known.status, known.reason, known.frames)
        assert row.seconds == (known.seconds if number < kept else None)
        assert row.path == (known.path if number < kept else f"/videos/{row.id}")
    ledger.save()
    assert not load(store).stale


def test_a_damaged_line_loses_no_quarantined_video(store):
    stored, *others, quarantined = store.read(LEDGER).splitlines(keepends=True)
    store.write(LEDGER, b"".join([*others, quarantined[:30], b"\n", stored]))
    ledger = load(store)
    assert len(ledger) == 4 and ledger["a/003.mp4"].status == "quarantined"
    assert ledger.stale


def test_rows_are_not_appended_to_a_torn_line(store):
    store.write(LEDGER, store.read(LEDGER)[:-20])
    ledger = load(store)
    row = Outcome("/videos/a/004.mp4", "a/004.mp4", QUARANTINED, "the file is empty", 0.1, 2)
    ledger.add(2, [row])
    rows = list(map(read_row, store.read(LEDGER).splitlines()))
    assert len(rows) == 5 and rows[-1] == row
    ledger.add(3, [row])
    assert len(store.read(LEDGER).splitlines()) == 6


def test_removed_ledger_and_removed_shard(store):
    store.remove(LEDGER)
    assert {row.status for row in load(store)} == {"ok", "quarantined"}
    store.remove("shards/00001.zarr")
    assert [row.id for row in load(store)] == ["a/000.mp4", "a/001.mp4"]


def test_rows_of_a_lost_shard_stay_until_others_have_its_videos(store):
    rows = {row.id: row for row in load(store)}
    store.remove("shards/00001.zarr")
    ledger = load(store)
    assert [row.id for row in ledger] == ["a/000.mp4", "a/001.mp4"] and not ledger.stale
    assert list(ledger.lost) == [rows["a/002.mp4"], rows["a/003.mp4"]]
    ledger.save()
    assert list(load(store).lost) == list(ledger.lost)
    ledger.add(4, [replace(rows["a/002.mp4"], shard=4)])
    assert [row.id for row in ledger.lost] == ["a/003.mp4"]
    ledger.save()
    assert sorted(row.id for row in read_rows(store)) == sorted(rows)


def test_a_shard_that_is_to_be_made_anew_counts_as_lost(store):
    ledger = load(store)
    ledger.lose(0)
    assert [row.id for row in ledger.lost] == ["a/000.mp4", "a/001.mp4"]
    assert "a/000.mp4" not in ledger and ledger.shards == {1}


def test_paths_without_the_folder_get_it_and_labels_follow_the_shards(store):
    rows = list(load(store))
    before = [replace(row, path=row.id, label=-1 if row.status == OK else 0) for row in rows]
    store.write(LEDGER, b"".join(_encode(before)))
    ledger = load(store)
    assert [row.path for row in ledger] == [f"/videos/{row.id}" for row in rows]
    assert [row.label for row in ledger] == [0, 0, 0, 0] and ledger.stale
    assert all(row.seconds is not None for row in ledger)
    ledger.save()
    assert not load(store).stale


def test_stored_wins_over_quarantined(store):
    row = load(store)["a/000.mp4"]
    worse = json.dumps({"path": row.path, "id": row.id, "status": "quarantined", "shard": 1})
    store.write(LEDGER, store.read(LEDGER) + worse.encode() + b"\n")
    assert load(store)["a/000.mp4"].status == "ok"


@pytest.mark.parametrize(
    ("video", "shard", "wrong"), [("a/003.mp4", 1, OK), ("a/000.mp4", 0, QUARANTINED)]
)
def test_the_shard_says_whether_it_stores_a_video(store, video, shard, wrong):
    """A shard may have been made again with another outcome."""
    right = load(store)[video].status
    rows = [row for row in map(read_row, store.read(LEDGER).splitlines()) if row.id != video]
    rows.append(Outcome(f"/videos/{video}", video, wrong, "" if wrong == OK else "?", 2.5, shard))
    store.write(LEDGER, b"".join(_encode(sorted(rows, key=lambda row: row.id))))
    ledger = load(store)
    assert ledger[video].status == right != wrong
    assert ledger.stale


@pytest.mark.parametrize(
    "row",
    [
        Outcome("/videos/a.mp4", "a.mp4", OK, "", 2.5, 7, 300, 10.0),
        Outcome("/videos/a.mp4", "a.mp4", OK, "", None, 7, 300, 10.0),
        Outcome("/videos/a.mp4", "a.mp4", OK, "", 2.5, 7, 300, 10.0, 3, STAGES_S),
        Outcome("/videos/a.mp4", "a.mp4", OK, "", 2.5, 7, 300, 10.0, 3, {"another stage": 1.0}),
        Outcome("/elsewhere/a.mp4", "a.mp4", OK, "", 2.5, 7, 300, 10.0),
        Outcome("/videos/a.mp4", "a.mp4", QUARANTINED, "the file is empty", 0.1, 7),
    ],
)
def test_rows_survive_a_round_trip(tmp_path, row):
    ledger = Ledger(open_place(tmp_path), "/videos")
    ledger.add(7, [row])
    assert list(ledger) == [row]
    ledger.save()
    assert read_row((tmp_path / LEDGER).read_bytes()) == row


def test_every_flipped_bit_of_a_row_is_found():
    row = Outcome("/videos/a.mp4", "a.mp4", OK, "", 2.5, 7, 300, 10.0)
    (line,) = _encode([row])
    for position in range(len(line) - 1):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError):
                read_row(bytes(damaged))


def test_row_of_an_older_store_needs_no_checksum():
    line = b'{"path": "/v/a", "id": "a", "status": "ok", "reason": "", "seconds": 1.0}'
    assert read_row(line).id == "a"


def test_an_unknown_status_is_damage():
    with pytest.raises(ValueError, match="status"):
        read_row(b'{"path": "/v/a", "id": "a", "status": "maybe"}')


def test_the_last_reason_of_a_video_that_failed_twice_stays(store, finished, tmp_path):
    root = shutil.copytree(finished / "videos", tmp_path / "videos")
    words = ["--dataset", "folder", "--serial", "--root", str(root), "--store", store.url, *SPEC]
    (root / "a/003.mp4").write_bytes(b"no video")
    assert mme(["flows", *words, "--retry-quarantined"]) == 0
    first = load(store, str(root))["a/003.mp4"]
    assert first.shard == 2 and first.reason != "the file is empty" and first.seconds is not None
    shutil.copy(root / "a/000.mp4", root / "a/004.mp4")
    assert mme(["flows", *words]) == 0
    assert load(store, str(root))["a/003.mp4"] == first


def test_a_stopped_run_saves_the_ledger_where_files_cannot_grow(finished, tmp_path, monkeypatch):
    """As on an object store."""
    place = open_place(tmp_path / "store")
    root = str(finished / "videos")
    words = ["--dataset", "folder", "--serial", "--root", root, "--videos-per-shard", "2"]

    def stop(display, result):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalPlace, "append", lambda *_: False)
    monkeypatch.setattr(Display, "finish", stop)
    assert mme(["flows", *words, "--store", place.url, *SPEC]) == 130
    rows = [json.loads(line) for line in place.read(LEDGER).splitlines()]
    assert [row["id"] for row in rows] == ["a/000.mp4", "a/001.mp4"]
    assert all(row["seconds"] for row in rows)
