"""Videos inside HDF5 files are listed and opened; anything else is refused."""

import contextlib

import h5py
import numpy as np
import pytest
from small_files import SPEC, write_clip

from mme_core.datasets import load_manifest
from mme_core.errors import UsageError, VideoError
from mme_core.extract import extract_video
from mme_core.io.video import read_frames
from mme_core.spec import TargetSpec


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    top = tmp_path_factory.mktemp("hdf5")
    clip = write_clip(top / "outside/clip.mp4").read_bytes()
    root = top / "root"
    root.mkdir()
    with h5py.File(root / "train_0.h5", "w") as file:
        file["wave/clip.mp4"] = np.frombuffer(clip, np.uint8)
        file["wave/opaque"] = np.void(clip)
        file["jump/text.mp4"] = np.frombuffer(b"no video at all" * 9, np.uint8)
        file["jump/empty.mp4"] = np.zeros(0, np.uint8)
        file["jump/labels"] = np.arange(4)
    with h5py.File(root / "val.hdf5", "w") as file:
        file["bend/1.mp4"] = np.frombuffer(clip, np.uint8)
    return root


def test_videos_in_containers_are_listed(root):
    train = load_manifest("hdf5", root, "train")
    assert [item.id for item in train.items] == [
        "train_0.h5::jump/empty.mp4",
        "train_0.h5::jump/labels",
        "train_0.h5::jump/text.mp4",
        "train_0.h5::wave/clip.mp4",
        "train_0.h5::wave/opaque",
    ]
    assert train.class_names == ("bend", "jump", "wave")
    assert [item.label for item in train.items] == [1, 1, 1, 2, 2]
    assert len(load_manifest("hdf5", root).items) == 6
    with pytest.raises(UsageError, match="no HDF5 file of split 'test'"):
        load_manifest("hdf5", root, "test")


def test_the_same_targets_as_from_the_file(root):
    spec = TargetSpec.from_overrides(SPEC)
    outside = extract_video(root.parent / "outside/clip.mp4", spec)
    for name in ("clip.mp4", "opaque"):
        inside = extract_video(f"{root}/train_0.h5::wave/{name}", spec)
        np.testing.assert_array_equal(inside.displacement, outside.displacement)
    frames = read_frames(f"{root}/train_0.h5::wave/clip.mp4", [0, 3])
    np.testing.assert_array_equal(frames, read_frames(root.parent / "outside/clip.mp4", [0, 3]))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train_0.h5::jump/text.mp4", "truncated or not a video"),
        ("train_0.h5::jump/empty.mp4", "the file is empty"),
        ("train_0.h5::jump/labels", "int64 numbers in the HDF5 file"),
        ("train_0.h5::jump", "a group of the HDF5 file"),
        ("train_0.h5::jump/none.mp4", "no such video in the HDF5 file"),
        ("none.h5::jump/1.mp4", "the HDF5 file cannot be read"),
    ],
)
def test_unusable_videos_in_a_container_have_a_reason(root, path, message):
    with pytest.raises(VideoError, match=message):
        extract_video(f"{root}/{path}", TargetSpec())


@pytest.fixture(scope="module")
def hostile(root):
    """An HDF5 file whose datasets point to other files, or claim to be larger than they are."""
    clip = np.fromfile(root.parent / "outside/clip.mp4", np.uint8)
    path = root.parent / "hostile.h5"
    layout = h5py.VirtualLayout((len(clip),), np.uint8)
    layout[:] = h5py.VirtualSource("root/train_0.h5", "wave/clip.mp4", (len(clip),))
    with h5py.File(path, "w") as file:
        outside = [(str(root.parent / "outside/clip.mp4"), 0, len(clip))]
        file.create_dataset("external", (len(clip),), np.uint8, external=outside)
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink("root/train_0.h5", "wave/clip.mp4")
        file["folder"] = h5py.ExternalLink("root/train_0.h5", "/wave")
        file["soft"] = h5py.SoftLink("/plain")
        file["plain"] = clip
        file.create_dataset("unwritten", (2**20,), np.uint8)
        file.create_dataset("chunks", (2**30,), np.uint8, chunks=(2**20,))
        file.create_dataset("zipped", data=np.zeros(2**22, np.uint8), compression="gzip")
        file.create_dataset("huge", (2**33,), np.uint8, chunks=(2**20,))
        file.create_dataset("texts", data=["a", "b"])
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("external", "lies in other files"),
        ("virtual", "lies in other files"),
        ("link", "a link in the HDF5 file"),
        ("folder/clip.mp4", "a link in the HDF5 file"),
        ("soft", "a link in the HDF5 file"),
        ("unwritten", "not written in full"),
        ("chunks", "not written in full"),
        ("zipped", "not written in full"),
        ("huge", "the limit is 2147483648"),
        ("texts", "not the bytes of a video file"),
        ("plain/deeper", "no such video"),
    ],
)
def test_only_plain_bytes_of_the_file_are_read(hostile, name, message):
    with pytest.raises(VideoError, match=message):
        read_frames(f"{hostile}::{name}", [0])


def test_playlist_in_a_container_is_refused(root):
    path = root.parent / "playlist.h5"
    text = f"#EXTM3U\n#EXTINF:9,\nfile:{root.parent}/outside/clip.mp4\n#EXT-X-ENDLIST\n"
    with h5py.File(path, "w") as file:
        file["a.mp4"] = np.frombuffer(text.encode(), np.uint8)
    with pytest.raises(VideoError, match="HLS"):
        read_frames(f"{path}::a.mp4", [0])


def test_a_damaged_container_is_a_video_error(root):
    data = (root / "val.hdf5").read_bytes()
    path = root.parent / "damaged.h5"
    for place in range(0, 2048, 16):
        path.write_bytes(data[:place] + b"\xff" * 16 + data[place + 16 :])
        with contextlib.suppress(VideoError):
            read_frames(f"{path}::bend/1.mp4", [0])


def test_a_list_of_videos_in_a_container(root):
    (root / "list.txt").write_text("train_0.h5::wave/clip.mp4 0\ngone.h5::wave/1.mp4 0\n")
    manifest = load_manifest("csv", root / "list.txt")
    assert manifest.notes == ("missing videos of the list: 1 (gone.h5::wave/1.mp4)",)


def test_file_that_is_no_hdf5(tmp_path):
    with pytest.raises(UsageError, match=r"no HDF5 file in .*: looked for names that end in"):
        load_manifest("hdf5", tmp_path)
    (tmp_path / "x.h5").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"x\.h5 cannot be read as HDF5"):
        load_manifest("hdf5", tmp_path)
