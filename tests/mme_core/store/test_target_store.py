import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_targets import SPEC, make_store, tubelets, write_shard

from mme_core.errors import StoreError, UsageError
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store import table
from mme_core.store.layout import INDEX
from mme_core.store.table import COLUMNS, VideoTable, load_table
from mme_core.store.target_store import TargetStore, open_or_create_store

HOP_2 = TargetSpec(stride=2, hop=2, short_side=64, long_side=80, frames="jpeg")


def test_the_table_of_videos(store_path):
    store = TargetStore(store_path)
    assert store.spec == SPEC
    assert (store.dataset, store.split, store.class_names) == ("folder", "train", ("x", "y"))
    assert len(store.videos) == 3 and [row["id"] for row in store.videos] == ["a.mp4", "b", "c"]
    assert store.videos["count"].tolist() == [11, 3, 6]
    assert store.videos["first"].tolist() == [0, 11, 0]
    assert store.videos["shard"].tolist() == [0, 0, 1]
    assert store.videos[-1]["id"] == "c" and store.videos.find("c") == 2
    with pytest.raises(UsageError, match=r"no video 'd' in the store; the first: a\.mp4, b, c"):
        store.videos.find("d")
    with pytest.raises(StoreError, match="no column 'fpz'"):
        store.videos["fpz"]


def test_a_window_has_the_documented_shapes(store_path):
    window = TargetStore(store_path).read(video=0, start=2, tubelets=8)
    lead = (8, 4, 5, 4)
    shapes = {
        "displacement": (*lead, 6, 2),
        "hog": (*lead, 6, 9),
        "points": (*lead, 7, 2),
        "position": (*lead, 6, 2),
        "shape": (*lead, 6, 9),
        "frames": (16, 64, 80, 3),
        "homography": (8, 6, 3, 3),
    }
    for name, shape in shapes.items():
        assert getattr(window, name).shape == shape, name
        assert getattr(window, name).dtype == (np.uint8 if name == "frames" else np.float32), name
    assert window.valid.shape == lead and window.valid.dtype == bool


def test_frames_are_the_stored_ones_in_rgb(tmp_path):
    import cv2

    store = TargetStore(make_store(tmp_path / "s", [{"a": 3}]))
    window = store.read_coded(0, 1, 2)
    assert window.frames == tuple(f for tubelet in tubelets(0, 3)[1:] for f in tubelet.frames)
    bgr = cv2.imdecode(np.frombuffer(window.frames[3], np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(window.decode_frames()[3], bgr[..., ::-1])
    assert store.read_coded(0, 1, 2, frames=False).frames == ()


def test_overlapping_tubelets_are_read_with_a_step(tmp_path):
    """With hop = stride, the tubelets of a clip are clip_step = 2 rows apart."""
    store = TargetStore(make_store(tmp_path / "s", [{"a": 12}], HOP_2))
    made = tubelets(0, 12, spec=HOP_2)
    window = store.read_coded(0, 3, 4)
    for place, row in enumerate((3, 5, 7, 9)):
        assert np.array_equal(window.position[place], made[row].position)
        assert window.frames[2 * place : 2 * place + 2] == made[row].frames
    with pytest.raises(UsageError, match=r"start=6 is not in 0 … 5"):
        store.read_coded(0, 6, 4)


@pytest.mark.parametrize("spec", [SPEC, HOP_2])
def test_a_short_video_is_padded(spec, tmp_path):
    store = TargetStore(make_store(tmp_path / "s", [{"a": 3}, {"b": 9}], spec))
    real = 3 if spec is SPEC else 2
    coded = store.read_coded(0, 0, 8)
    assert coded.valid[:real].any((1, 2)).all() and not coded.valid[real:].any()
    assert coded.frames[2 * real :] == (coded.frames[2 * real - 1],) * (16 - 2 * real)
    assert (coded.pts[real:] == coded.pts[real - 1, 1]).all()
    window = coded.decode()
    assert not window.displacement[real:].any() and not window.hog[real:].any()
    assert (window.frames[2 * real :] == window.frames[2 * real - 1]).all()
    if spec is SPEC:
        assert (window.homography[real:] == np.eye(3)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0, 8), "video=3 is not in 0 … 2"),
        ((-1, 0, 8), "video=-1 is not in"),
        ((0, 4, 8), "start=4 is not in 0 … 3: a.mp4 has 11 tubelets, and 8 were asked for"),
        ((0, -1, 8), "start=-1"),
        ((1, 1, 8), "start=1 is not in 0 … 0"),
        ((0, 0, 0), "tubelets=0"),
    ],
)
def test_reading_a_missing_window_is_an_error(arguments, message, store_path):
    with pytest.raises(UsageError, match=message):
        TargetStore(store_path).read(*arguments)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_window_is_the_slice_of_the_whole(store_path, data):
    store = TargetStore(store_path)
    video = data.draw(st.integers(0, 2))
    count = store.videos[video]["count"]
    start = data.draw(st.integers(0, count - 1))
    n = data.draw(st.integers(1, count - start))
    whole, window = store.read_coded(video, 0, count), store.read_coded(video, start, n)
    for name in ("position", "shape", "moments", "valid", "pts", "homography"):
        assert np.array_equal(getattr(window, name), getattr(whole, name)[start : start + n])
    assert window.frames == whole.frames[2 * start : 2 * (start + n)]


def first_code(store):
    return store.read_coded(2, 0, 6).position.tobytes()


def in_child(store, results):
    results.put(first_code(store))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_store_goes_to_other_processes(method, scheme, store_path, tmp_path):
    if scheme and method == "spawn":
        pytest.skip("a memory file system is this process' own")
    url = store_path
    if scheme:
        url = make_store(f"memory://{tmp_path}/s", [{"a.mp4": 11, "b": 3}, {"c": 6}])
    store = TargetStore(url)
    expected = first_code(store)  # its caches are warm before the fork
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=in_child, args=(store, results))
    child.start()
    assert results.get(timeout=60) == expected
    child.join()
    assert first_code(pickle.loads(pickle.dumps(store))) == expected


def test_a_copied_store_keeps_its_table(copied):
    store = TargetStore(copied)
    shutil.move(copied / "shards/00001.zarr", copied / "shards/00002.zarr")
    write_shard(copied, 1, {"new": 4})
    assert list(pickle.loads(pickle.dumps(store)).videos["id"]) == ["a.mp4", "b", "c"]
    assert list(TargetStore(copied).videos["id"]) == ["a.mp4", "b", "new", "c"]


def test_index_follows_the_shards(copied, monkeypatch):
    def ids():
        return list(TargetStore(copied).videos["id"])

    (copied / INDEX).unlink(missing_ok=True)
    assert ids() == ["a.mp4", "b", "c"]
    assert (copied / INDEX).exists()
    read = []
    original = VideoTable.from_rows.__func__
    monkeypatch.setattr(
        VideoTable, "from_rows", classmethod(lambda c, rows: read.append(1) or original(c, rows))
    )
    assert ids() == ["a.mp4", "b", "c"] and not read  # from the cache alone
    write_shard(copied, 5, {"d": 2})
    assert ids() == ["a.mp4", "b", "c", "d"] and len(read) == 1  # only the new shard is read
    shutil.rmtree(copied / "shards/00000.zarr")
    assert ids() == ["c", "d"]
    write_shard(copied, 0, {"e": 2})
    assert ids() == ["e", "c", "d"]
    (copied / INDEX).write_bytes(b"torn")
    assert ids() == ["e", "c", "d"]
    assert [path.name for path in copied.iterdir() if path.name.startswith(".")] == []


def test_an_index_without_a_column_is_built_anew(copied, monkeypatch):
    columns = {name: kind for name, kind in COLUMNS.items() if name != "first_frame"}
    monkeypatch.setattr(table, "COLUMNS", columns)
    (copied / INDEX).unlink(missing_ok=True)
    TargetStore(copied)
    monkeypatch.undo()
    assert list(TargetStore(copied).videos["first_frame"]) == [0, 0, 0]


def test_a_read_only_store_is_read(copied, monkeypatch):
    (copied / INDEX).unlink(missing_ok=True)
    original = Path.open

    def refuse(path, mode="r", *more, **options):  # the superuser may write into read-only folders
        if "w" in mode and path.is_relative_to(copied):
            raise PermissionError(13, "read-only file system", str(path))
        return original(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert len(TargetStore(copied).read(2, 0, 2).valid) == 2
    assert not (copied / INDEX).exists()


def test_unfinished_shard_on_an_object_store_is_invisible(tmp_path):
    url = make_store(f"memory://{tmp_path}/s", [{"a": 3}, {"b": 3}])
    assert len(TargetStore(url).videos) == 2
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm(f"{root}/shards/00001.zarr/zarr.json")
    assert list(TargetStore(url).videos["id"]) == ["a"]


def test_open_or_create_refuses_other_arguments(tmp_path):
    def open_with(spec=SPEC, dataset="folder", split="train", names=("x", "y")):
        open_or_create_store(tmp_path, spec, dataset, split, names)

    open_with()
    made = (tmp_path / "store.json").read_bytes()
    open_with()
    assert (tmp_path / "store.json").read_bytes() == made
    with pytest.raises(
        StoreError,
        match=r"spec.stride: 3 asked for, 4 in the store; spec.hop: 6 asked for, 8 in the store",
    ):
        open_with(TargetSpec(stride=3, short_side=64, long_side=80, camera="homography"))
    with pytest.raises(StoreError, match=r"class_names: .*'z'"):
        open_with(names=("x", "z"))
    with pytest.raises(
        StoreError, match=r"split: val asked for, train in the store.*there is no shard yet"
    ):
        open_with(split="val")
    write_shard(tmp_path, 0, {"a": 1})
    with pytest.raises(StoreError, match=r"arguments it was made with$"):
        open_with(split="val")


def test_the_index_of_another_specification_is_not_used(store_path, tmp_path):
    place = open_place(shutil.copytree(store_path, tmp_path / "copied"))
    TargetStore(place.url)
    with pytest.raises(StoreError, match=r"00000.zarr was made with another specification"):
        load_table(place, "0")
    assert len(load_table(place, SPEC.hash)) == len(TargetStore(store_path).videos)


def test_nothing_stays_open(store_path):
    store = TargetStore(store_path)
    store.read(0, 0, 8)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for video in range(3):
        store.read(video, 0, 3)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_reading_needs_no_extra_but_opencv(store_path):
    code = f"""
import sys
for name in ("av", "h5py", "matplotlib", "omegaconf", "psutil", "ray", "simplejpeg", "torch"):
    sys.modules[name] = None
from mme_core import TargetStore
print(TargetStore({str(store_path)!r}).read(0, 0, 2).frames.dtype)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "uint8\n", done.stderr
