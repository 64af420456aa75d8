import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from made_up_targets import SPEC, change_json, make_store, row, tubelets, write_shard

from mme_core import cli
from mme_core.errors import StoreError
from mme_core.io.place import open_place
from mme_core.store import TargetStore, VideoTable, layout, table
from mme_core.store.writer import ShardWriter
from preprocess.verify import verify_store


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of three shards, one of them without a video."""
    return make_store(tmp_path_factory.mktemp("store") / "s", [{"a": 11, "b": 3}, {"c": 6}, {}])


@pytest.fixture
def store(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def problems(store, **options):
    return verify_store(str(store), **options).problems


def only(store, **options):
    (problem,) = problems(store, **options)
    return problem


def change_table(store, change):
    change_json(store / "shards/00000.zarr/zarr.json", lambda v: change(v["attributes"]))


def test_a_sound_store_has_no_problem(store, capsys):
    report = verify_store(str(store), deep=True)
    assert (report.problems, report.notes) == ([], [])
    assert (report.shards, report.videos, report.tubelets) == (3, 3, 20)
    assert cli.main(["verify", str(store)]) == 0
    assert "3 videos, 20 tubelets, 3 shards: no problem found" in capsys.readouterr().out


def test_also_behind_a_url_and_with_processes(store, tmp_path):
    url = make_store(f"memory://{tmp_path}/s", [{"a": 4}])
    assert problems(url) == []
    done = subprocess.run(
        [sys.executable, "-m", "mme_core", "verify", str(store), "--workers", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", list(layout.layouts(SPEC)))
def test_a_changed_byte_is_found_in_every_array(name, store, capsys):
    path = next(store.glob(f"shards/00001.zarr/{name}/c.0*"))
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(data)
    assert f"00001.zarr: array '{name}', rows 0–" in problems(store)[0]
    assert cli.main(["verify", str(store)]) == 1
    assert "problem" in capsys.readouterr().out.splitlines()[-1]


def test_every_damaged_chunk_is_reported_and_no_other(store):
    path = next(store.glob("shards/00000.zarr/shape/c.0*"))
    data = bytearray(path.read_bytes())
    index = np.frombuffer(data[-516:-4], "<u8").reshape(-1, 2)
    for chunk in (0, 2):
        data[int(index[chunk, 0]) + 5] ^= 1
    path.write_bytes(data)
    first, second = problems(store)
    assert "array 'shape', rows 0–3 " in first and "array 'shape', rows 8–11 " in second


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_damaged_file_is_reported_once(damage, store):
    path = next(store.glob("shards/00000.zarr/position/c.0*"))
    path.write_bytes(path.read_bytes()[:-7]) if damage == "cut off" else path.unlink()
    assert "array 'position', rows 0–127" in only(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["videos"][1].update(first=12), "'b' starts at tubelet 12, not at 11"),
        (lambda a: a["videos"][0].update(count=10), "'a' has 10 tubelets; 85 frames make 11"),
        (lambda a: a["videos"][0].update(wp=4), "'a' has 4×4 patches; 80×64 frames make 4×5"),
        (lambda a: a["videos"][0].update(label=7), "'a' has label 7, but there are 2 classes"),
        (lambda a: a["videos"][0].update(height=0), "'a': 80×0 frames have no canvas"),
        (lambda a: a["videos"][0].pop("fps"), "row 0 of the table: fps missing"),
        (lambda a: a["videos"][1].update(id="a"), "'a' is in the table twice"),
        (lambda a: a["videos"].pop(), "the table ends at tubelet 11, the shard at 14"),
        (lambda a: a.update(spec_hash="0"), "than store.json's; `mme repair` makes the shard"),
        (lambda a: a.update(frame_bytes=a["frame_bytes"] - 1), "the last frame ends at byte"),
        (lambda a: a.pop("videos"), "damaged"),
        (lambda a: a.update(format=9), "newer"),
    ],
)
def test_a_table_that_is_wrong(change, message, store):
    change_table(store, change)
    assert any(message in problem for problem in problems(store)), problems(store)
    assert all("00000.zarr" in p or "stored 2 times" in p for p in problems(store))


def test_an_array_that_other_readers_would_misread(store):
    file = store / "shards/00001.zarr/shape/zarr.json"
    change_json(file, lambda v: v["shape"].__setitem__(0, 5))
    assert "shape/zarr.json: shape is [5," in only(store)
    change_json(file, lambda v: v["shape"].__setitem__(0, 6))
    change_json(file, lambda v: v.update(node_type="brray"))
    assert "node_type is brray, and should be array; `mme repair`" in only(store)
    for text in ("7", "[" * 100_000):
        file.write_text(text)
        assert "shape/zarr.json" in only(store)
    file.unlink()
    assert "cannot be read" in only(store)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("valid", 16, "a bit beyond the 4 points"),
        ("moments", np.nan, "not finite"),
        ("homography", np.inf, "not finite"),
        ("frames", b"no picture", "is no image, and should be 64×80×3"),
        ("frames", b"I420 is the start of a frame in LZ4", "is no image, and should be 64×80×3"),
    ],
)
def test_values_that_cannot_be(name, value, message, store):
    """The damaged values have valid checksums."""
    tubelet = tubelets(0, 1)[0]
    if name == "frames":
        object.__setattr__(tubelet, name, (tubelet.frames[0], value))
    else:
        getattr(tubelet, name)[...] = value
    with ShardWriter(store, 7, SPEC) as writer:
        writer.begin_video()
        writer.append(tubelet)
        writer.end_video(row("d", 1))
    assert message in only(store, deep=True)
    assert problems(store) == [] if name == "frames" else problems(store)


def test_values_outside_of_the_canvas(store):
    """The arrays hold 4 × 5 patches, but the table says 4 × 4."""
    change_table(store, lambda a: [v.update(wp=4, width=64) for v in a["videos"]])
    found = problems(store)
    for name in ("position", "shape", "moments", "valid"):
        assert any(f"array '{name}'" in p and "outside of the video" in p for p in found), name
    assert any("frame 0 of video 'a' is 64×80×3, and should be 64×64×3" in p for p in found)


def test_a_table_that_is_empty_is_named_with_the_mend(store):
    path = store / "shards/00001.zarr/zarr.json"
    for content in (b"", bytes(100)):
        path.write_bytes(content)
        assert only(store) == f"{path} is missing or empty; `mme repair` makes the shard anew"


def test_files_that_do_not_belong(store):
    (store / "shards/00001.zarr/extra").write_text("x")
    (store / "shards/00001.zarr/pts/c.9.0").write_text("x")
    first, second = problems(store)
    assert "00001.zarr/extra does not belong" in first
    assert "00001.zarr/pts/c.9.0 does not belong" in second


def test_a_video_that_is_stored_twice(store):
    write_shard(store, 3, {"c": 2})
    assert only(store) == "video 'c' is stored 2 times, in shards/00001.zarr, shards/00003.zarr"


def test_an_index_that_lies(store):
    TargetStore(store)
    place = open_place(store)
    stamps, cached = table.read_cache(place)
    rows = [row | {"label": row["label"] + 1} for row in cached]
    table._write_cache(place, stamps, VideoTable.from_rows(rows))
    assert "index.npz is not what the shards say" in only(store)


def test_a_ledger_that_promises_more_than_there_is(store):
    rows = [{"id": name, "path": name, "status": "ok", "reason": ""} for name in ("a", "z")]
    rows.append({"id": "q", "path": "q", "status": "quarantined", "reason": "1 frame"})
    (store / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id"')
    torn, lost = problems(store)
    assert "ledger.jsonl, line 4 is damaged" in torn
    assert "calls 1 video stored that no shard has (z)" in lost


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_what_killed_writers_left_is_noted(scheme, tmp_path, capsys):
    url = f"{scheme}{tmp_path}/s"
    make_store(url, [{"a": 3}, {"b": 2}])
    fs, root = fsspec.core.url_to_fs(url)
    if scheme:
        fs.rm(f"{root}/shards/00001.zarr/zarr.json")
    else:
        fs.mv(f"{root}/shards/00001.zarr", f"{root}/shards/00001.zarr.partial-1", recursive=True)
    report = verify_store(url)
    assert report.problems == [] and report.videos == 1
    assert "left by a writer that was killed" in report.notes[0]
    if not scheme:
        assert cli.main(["verify", url]) == 0
        assert capsys.readouterr().out.startswith("note: ")


def test_no_store_and_no_shard(tmp_path, capsys):
    with pytest.raises(StoreError, match="does not exist"):
        verify_store(str(tmp_path / "none"))
    make_store(tmp_path / "s", [])
    assert "has no finished shard" in only(tmp_path / "s")
    assert cli.main(["verify", str(tmp_path / "none")]) == 1
    assert cli.main(["verify", str(tmp_path / "s"), "--workers", "0"]) == 2
    assert "--workers 0" in capsys.readouterr().err
