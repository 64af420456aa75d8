import hashlib
import json
import os
from pathlib import Path

import fsspec
import made_up_targets
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_targets import SPEC, make_store, raw, row, tubelets, write_shard

from mme_core import targets
from mme_core.errors import StoreError
from mme_core.extract.kept_flow import FlowFile
from mme_core.io.place import open_place
from mme_core.store import layout
from mme_core.store.leftovers import leftovers, remove_leftovers
from mme_core.store.target_store import TargetStore, open_or_create_store
from mme_core.store.writer import ShardWriter
from mme_core.targets import round_moments

HELPERS = Path(made_up_targets.__file__).parent


def digest(folder):
    """Digests the names and contents of all files of a shard."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def small_files(monkeypatch):
    """Makes files of 8 tubelets, so that a few videos fill several files."""
    monkeypatch.setattr(layout, "FILE_TUBELETS", 8)
    monkeypatch.setattr(layout, "SMALL_FILE_TUBELETS", 64)
    monkeypatch.setattr(layout, "FRAME_CHUNK", 1 << 10)
    monkeypatch.setattr(layout, "FRAME_FILE", 1 << 13)


@pytest.mark.parametrize("url", ["{tmp}/store", "file://{tmp}/store", "memory://{tmp}/store"])
def test_what_is_written_is_read_back(url, tmp_path, small_files):
    url = make_store(url.format(tmp=tmp_path), [{"a": 11, "b": 3, "c": 30}, {"d": 20}])
    store = TargetStore(url)
    assert list(store.videos["id"]) == ["a", "b", "c", "d"]
    assert store.videos[2] == {
        **row("c", 30),
        "first": 14,
        "count": 30,
        "hp": 4,
        "wp": 5,
        "first_frame": 0,
        "shard": 0,
    }
    for video, seed in enumerate([0, 1, 2, 0]):
        count = store.videos[video]["count"]
        made = tubelets(seed, count)
        window = store.read_coded(video, 0, count)
        for name in ("position", "shape", "valid", "pts", "homography"):
            stacked = np.stack([getattr(tubelet, name) for tubelet in made])
            assert np.array_equal(getattr(window, name), stacked), name
        assert window.frames == tuple(frame for tubelet in made for frame in tubelet.frames)


def test_any_zarr_reader_sees_the_same_arrays(tmp_path, small_files):
    url = make_store(tmp_path / "store", [{"a": 11, "b": 3}])
    group = zarr.open_group(str(url / "shards/00000.zarr"), mode="r")
    window = TargetStore(url).read_coded(1, 0, 3)
    for name in ("position", "shape", "moments", "valid", "pts", "homography"):
        cut = group[name][11:14]
        if name in ("position", "shape", "moments", "valid"):
            cut = cut[:, :4, :5]
        assert np.array_equal(cut, getattr(window, name)), name
    ends = group["frame_ends"][21:28]
    assert group["frames"][ends[0] : ends[-1]].tobytes() == b"".join(window.frames)
    assert group["frame_ends"].shape == (28,) and group["position"].shape[0] == 14
    assert group["position"].shards[0] == 8 and group["position"].chunks[0] == 4


def test_the_bytes_are_the_same_every_time(tmp_path, small_files):
    videos = {"a": 11, "b": 3, "c": 30}
    one = make_store(tmp_path / "1", [videos])
    other = make_store(tmp_path / "2", [videos])
    assert digest(one / "shards/00000.zarr") == digest(other / "shards/00000.zarr")


def test_a_still_video_is_stored_like_any_other(tmp_path):
    """By default Zarr omits chunks of zeros. Here a missing chunk is damage."""
    still = tubelets(0, 1)[0]
    for name in ("position", "shape", "moments", "valid", "homography"):
        getattr(still, name)[...] = 0
    with ShardWriter(make_store(tmp_path / "s", []), 0, SPEC) as writer:
        writer.begin_video()
        for _ in range(6):
            writer.append(still)
        writer.end_video(row("a", 6))
    assert not TargetStore(tmp_path / "s").read_coded(0, 0, 6).shape.any()


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("before", [0, 1, 7, 8, 17])
@pytest.mark.parametrize("length", [1, 9, 30])
def test_an_abandoned_video_leaves_no_trace(scheme, before, length, tmp_path, small_files):
    """The video fails in the first file, or after several files were written."""

    def write(url, abandon):
        open_or_create_store(url, SPEC, "folder", None, [])
        with ShardWriter(url, 0, SPEC) as writer:
            for name, count in (("a", before), ("bad", length), ("c", 5)):
                if not count or (name == "bad" and not abandon):
                    continue
                writer.begin_video()
                for tubelet in tubelets(len(name), count):
                    writer.append(tubelet)
                writer.abandon_video() if name == "bad" else writer.end_video(row(name, count))
        if scheme:
            fs, root = fsspec.core.url_to_fs(url)
            return {path.removeprefix(root): fs.cat_file(path) for path in fs.find(root)}
        return digest(tmp_path / url / "shards/00000.zarr")

    one = write(f"{scheme}{tmp_path}/with", True)
    assert one == write(f"{scheme}{tmp_path}/without", False)


def test_a_shard_without_videos_is_complete(tmp_path):
    url = make_store(tmp_path / "store", [{}, {"a": 2}])
    assert list(TargetStore(url).videos["shard"]) == [1]
    with ShardWriter(url, 2, SPEC) as writer:
        writer.quarantine({"id": "b", "path": "b", "label": 0, "reason": "no frame"})
    text = (url / "shards/00002.zarr/zarr.json").read_text()
    assert json.loads(text)["attributes"]["quarantined"][0]["reason"] == "no frame"


def test_first_of_two_writers_wins(tmp_path):
    url = make_store(tmp_path / "store", [])
    with ShardWriter(url, 0, SPEC) as slow:
        slow.begin_video()
        write_shard(url, 0, {"a": 3})
        done = digest(url / "shards/00000.zarr")
        for tubelet in tubelets(0, 3):
            slow.append(tubelet)
        slow.end_video(row("a", 3))
    assert digest(url / "shards/00000.zarr") == done
    assert names(url / "shards") == ["00000.zarr"]


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_writer_that_lost_its_lock_leaves_no_shard(scheme, tmp_path, small_files):
    url = f"{scheme}{tmp_path}/store"
    make_store(url, [{"a": 2}])
    written = []

    def refuse():
        written.extend(open_place(url).files("shards"))
        raise StoreError("lost")

    with pytest.raises(StoreError, match="lost"), ShardWriter(url, 1, SPEC, check=refuse) as writer:
        writer.begin_video()
        for tubelet in tubelets(0, 3):
            writer.append(tubelet)
        writer.end_video(row("b", 3))
    assert any("valid/c." in name and "00001.zarr" in name for name in written)  # asked at the end
    assert list(TargetStore(url).videos["id"]) == ["a"]


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_error_inside_the_block_leaves_no_shard(scheme, tmp_path, small_files):
    url = f"{scheme}{tmp_path}/store"
    make_store(url, [{"a": 2}])
    with pytest.raises(KeyError), ShardWriter(url, 1, SPEC) as writer:
        writer.begin_video()
        for tubelet in tubelets(0, 20):
            writer.append(tubelet)
        raise KeyError
    assert list(TargetStore(url).videos["id"]) == ["a"]
    if scheme:  # no renaming there: files remain, but not the metadata that makes them a shard
        assert remove_leftovers(url) == ["shards/00001.zarr"]
    assert leftovers(url) == []


def test_files_are_written_as_they_fill(tmp_path, small_files):
    """Memory does not depend on a video's length: at most one file of each array waits."""
    with pytest.raises(InterruptedError), ShardWriter(tmp_path, 0, SPEC) as writer:
        writer.begin_video()
        for number, tubelet in enumerate(tubelets(0, 30)):
            writer.append(tubelet)
            written = {path.name for path in tmp_path.rglob("shape/c.*")}
            assert written == {f"c.{file}.0.0.0.0.0" for file in range((number + 1) // 8)}
        raise InterruptedError


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([("append", tubelets(0, 1)[0])], "outside of a video"),
        ([("begin_video",), ("begin_video",)], "before the end"),
        ([("begin_video",), ("end_video", row("a", 1))], "without a tubelet"),
        ([("abandon_video",)], "outside of a video"),
        ([("begin_video",)], "ends inside a video"),
    ],
)
def test_calls_out_of_order_are_errors(calls, message, tmp_path):
    with pytest.raises(ValueError, match=message), ShardWriter(tmp_path, 0, SPEC) as writer:
        for name, *arguments in calls:
            getattr(writer, name)(*arguments)
    assert not list(tmp_path.rglob("*.zarr*"))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.floats(-6, 3), st.floats(-6, 3))
def test_rounded_moments_change_values_little(seed, spread, shift):
    """Checked at every code that occurs, against the exact moments."""
    rng = np.random.default_rng(seed)
    displacement, hog = raw(rng, 1, 2, 2)
    displacement = displacement * np.float32(10**spread) + np.float32(10**shift)
    hog = hog * np.float32(10**spread)
    position, shape, moments = targets.encode(displacement, hog, SPEC)
    rounded = round_moments(moments, SPEC)
    exact = moments.astype(np.float64)
    for codes, decode, part, scale in (
        (position, targets.decode_displacement, np.s_[2:4], targets.position_scale(SPEC)),
        (shape, targets.decode_hog, np.s_[5:6], targets.shape_scale(SPEC)),
    ):
        error = np.abs(decode(codes, rounded.astype(np.float64), SPEC) - decode(codes, exact, SPEC))
        step = (exact[..., part] + targets.EPSILON)[..., None, None, :] / scale
        assert (error <= 0.1 * step).all()
    assert np.array_equal(round_moments(rounded, SPEC), rounded)


def test_constant_patches_keep_their_moments_finite():
    moments = np.array([[0.9, -0.0, 0, 0, 0, 0], [1e-7, 50, 0, 1e-8, 3, 0]], np.float32)
    rounded = round_moments(moments, SPEC)
    assert np.isfinite(rounded).all()
    np.testing.assert_allclose(rounded, moments, atol=1e-6)


def test_whole_shard_is_synced_before_its_rename(tmp_path, monkeypatch):
    """Otherwise a power cut leaves a shard with empty files."""
    steps = []
    rename, sync = Path.rename, os.fsync

    def note_sync(handle):
        steps.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    def note_rename(path, target):
        inside = {str(each) for each in [path, *path.rglob("*")]}
        assert inside <= set(steps)
        steps.append("rename")
        return rename(path, target)

    url = make_store(tmp_path / "store", [])
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    write_shard(url, 0, {"a": 2})
    assert steps[-2:] == ["rename", str(url / "shards")]


def test_kept_flow_is_synced_before_its_shard_appears(tmp_path, monkeypatch):
    """Otherwise a power cut leaves a shard without its flow."""
    steps = []
    rename, replace, sync = Path.rename, Path.replace, os.fsync

    def note_sync(handle):
        steps.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    def note_rename(path, target):
        steps.append("rename")
        return rename(path, target)

    def note_replace(path, target):
        steps.append(f"replace {Path(target).name}")
        return replace(path, target)

    url = make_store(tmp_path / "store", [])
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(Path, "replace", note_replace)
    with ShardWriter(url, 0, SPEC, keep_flow=True):
        pass
    placed = steps.index("replace 00000.h5")
    synced = steps[placed : steps.index("rename")]
    assert {str(url / "flow"), str(url)} <= set(synced)


def test_a_writer_that_lost_its_lock_leaves_the_kept_flow_of_another(tmp_path):
    def refuse():
        raise StoreError("lost")

    url = make_store(tmp_path / "store", [])
    (url / "flow").mkdir()
    (url / "flow" / "00000.h5").write_bytes(b"of the new owner")
    with pytest.raises(StoreError, match="lost"), ShardWriter(url, 0, SPEC, True, refuse):
        pass
    assert (url / "flow" / "00000.h5").read_bytes() == b"of the new owner"
    assert names(url / "shards") == []


def test_a_full_disk_under_kept_flow_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise StoreError("No space left on device")

    store = make_store(tmp_path / "s", [])
    monkeypatch.setattr(FlowFile, "close", full)
    with pytest.raises(KeyError, match="the first error"), ShardWriter(store, 0, SPEC, True):
        raise KeyError("the first error")
    assert list((store / "shards").iterdir()) == []
