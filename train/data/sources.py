"""Labelled videos as clips of frames: from video files, or from the frames of a store.

A source numbers the frames of each video from 0: a file source offers all raw frames, a store
source every `spec.stride`-th. `step` is the distance of two frames on offer, in raw frames;
`stride` is the distance of two frames of a clip, unless `data.stride` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mme_core.datasets import VideoItem, load_manifest
from mme_core.errors import UsageError, VideoError, listed, named
from mme_core.frame_codec import decode_frames
from mme_core.io.frame_folder import FrameFolder, is_frame_folder
from mme_core.io.remote import join
from mme_core.io.video import Video, longest_part, read_frames
from mme_core.spec import TUBELET
from mme_core.store import TargetStore
from train.data.overlap import Videos, check_overlap
from train.data.stores import check_complete, unread_root
from train.recipes.classification import (
    LabelledDataConfig,
    SplitDataConfig,
    check_both,
    check_videos,
)
from train.recipes.messages import is_main, say

VAL_KEYS = "val_store, data.val_root or data.val_split"
USUAL_SPLITS = ("train", "val")  # defaults of data.train_split and data.val_split
FILE_STRIDE = 4  # raw frames from one frame of a clip to the next, for files without a store

Choose = Callable[[int], np.ndarray]  # frames of a video -> the indices to read, of any shape


class Source(Protocol):
    """ids and labels (−1: none) of the videos, the names of the classes, and their frames."""

    ids: Sequence[str]
    labels: np.ndarray
    class_names: Sequence[str]
    step: int
    stride: int

    @property
    def videos(self) -> Videos:
        """The videos, as `check_overlap` compares them with those of another source."""

    def missing(self) -> list[tuple[str, str]]:
        """(id, reason) of videos of the data set that were left out before."""

    def read(self, video: int, choose: Choose) -> np.ndarray:
        """uint8 [*indices.shape, H, W, 3] RGB of the frames that `choose` picks.

        Raises VideoError or StoreError for a video that cannot be read.
        """


class FileSource:
    """Frames decoded from video files, at their own size, with square pixels by default."""

    step = 1

    def __init__(
        self,
        items: Sequence[VideoItem],
        class_names: Sequence[str],
        stride: int = FILE_STRIDE,
        missing: Sequence[tuple[str, str]] = (),
        square_pixels: bool = True,
    ) -> None:
        self.stride = stride
        self._square_pixels = square_pixels
        self._missing = list(missing)
        self.items = items
        self.ids: Sequence[str] = [item.id for item in items]
        self.labels = np.array([item.label for item in items], np.int64)
        self.class_names: Sequence[str] = class_names

    @property
    def videos(self) -> Videos:
        return self.items

    def missing(self) -> list[tuple[str, str]]:
        return self._missing

    def read(self, video: int, choose: Choose) -> np.ndarray:
        """Counts packets as frames, which needs no decoding. Where that fails, counts frames.

        Where the frame size changes, the frames are those of the longest part of one size.
        """
        path = self.items[video].path
        pts = packet_pts(path)
        try:
            _check_moving(len(pts))
            return self._read_file(path, choose(len(pts)), pts)
        except VideoError:
            part = longest_part(path, square_pixels=self._square_pixels)
            if (part.first, part.count) == (0, len(pts)):
                raise
        _check_moving(part.count)
        return self._read_file(path, choose(part.count) + part.first, None)

    def _read_file(self, path: str, indices: np.ndarray, pts: np.ndarray | None) -> np.ndarray:
        """`pts` holds the timestamps of all frames in the decoder's output order, if known."""
        wanted, inverse = np.unique(indices, return_inverse=True)
        known = pts[wanted] if pts is not None and (np.diff(pts) > 0).all() else None
        frames = read_frames(path, wanted, known, square_pixels=self._square_pixels)
        return frames[inverse.reshape(indices.shape)]


def packet_pts(path: str) -> np.ndarray:
    """Timestamps of the frames in the decoder's output order, int64; without decoding."""
    if is_frame_folder(path):
        return FrameFolder(path).numbers
    with Video(path) as video:
        return np.array(video.presented_pts(), np.int64)


def _check_moving(frames: int) -> None:
    if frames < 2:
        raise VideoError("one frame: a still picture, not a video")


class StoreSource:
    """The frames of a store, at canvas size.

    Tubelets that follow each other without overlap hold every `spec.stride`-th raw frame once.
    """

    def __init__(self, store: TargetStore) -> None:
        if store.spec.frames == "none":
            raise UsageError(
                f"{store.url}: made with spec.frames=none: use data.frames=video with data.root=… "
                "(the folder of its videos)"
            )
        self.store = store
        self.ids: Sequence[str] = list(store.videos["id"])
        self.labels = np.asarray(store.videos["label"], np.int64)
        self.class_names: Sequence[str] = store.class_names
        self.step = self.stride = store.spec.stride

    @property
    def videos(self) -> Videos:
        return self.store

    def missing(self) -> list[tuple[str, str]]:
        return list(self.store.quarantined().items())

    def read(self, video: int, choose: Choose) -> np.ndarray:
        step = self.store.spec.clip_step
        count = -(-int(self.store.videos["count"][video]) // step)
        tubelets, member = np.divmod(choose(TUBELET * count), TUBELET)
        first, last = int(tubelets.min()), int(tubelets.max())
        coded = self.store.read_frames(video, first * step, last - first + 1)
        places = (tubelets - first) * TUBELET + member
        frames = decode_frames([coded[place] for place in places.ravel()])
        return frames.reshape(*places.shape, *frames.shape[1:])


@dataclass(frozen=True)
class Sources:
    """Training and held-out videos; the held-out labels count in the training classes."""

    train: Source
    val: Source


def open_source(
    data: LabelledDataConfig, store: str | None, *, root: str | None, split: str | None
) -> Source:
    """One source from a store, or from the video files of `data.dataset`.

    Raises UsageError where `root` is given and no video file is read. Says that a store is read
    whole where `split` is not a default: a recipe for files may name one.
    """
    check_videos(data, store)
    if store is not None:
        _check_unused(data, store, root, split)
        return _of_store(data.frames, store, root)
    assert data.dataset is not None  # checked
    return _of_data_set(data.dataset, root, split)


def _check_unused(
    data: LabelledDataConfig, store: str, root: str | None, split: str | None
) -> None:
    if root is not None and data.frames == "store":
        raise unread_root("data.root" if root == data.root else "data.val_root", root, store)
    if split not in (None, *USUAL_SPLITS):
        say(f"{store}: all its videos are used; split '{split}' is one of data.dataset alone")


def _of_data_set(dataset: str, root: str | None, split: str | None) -> Source:
    if root is None:
        raise UsageError("data.root is not set: the folder (or list) of data.dataset's videos")
    with named(root="data.root", list_file="data.root", dataset="data.dataset"):
        manifest = load_manifest(dataset, root, split)
    origin = f"{dataset}, {split}" if split else dataset
    for note in manifest.notes:
        say(f"{origin}: {note}")
    lacking = [(name, "in the list, but not in the folder") for name in manifest.missing]
    return FileSource(manifest.items, manifest.class_names, missing=lacking)


def _of_store(frames: str, url: str, root: str | None) -> Source:
    if url.startswith("["):
        raise UsageError(f"{url}: only `mme pretrain` reads several stores; name one")
    store = TargetStore(url)
    check_complete(store)
    if frames == "store":
        return StoreSource(store)
    table = store.videos
    if root is None and any(join("/", path) != path for path in table["path"]):
        raise UsageError(
            f"data.root is not set: the folder of the video files of {url}, which "
            "data.frames=video reads"
        )
    items = [
        VideoItem(id_, join(root or "", path), int(label))
        for id_, path, label in zip(table["id"], table["path"], table["label"])
    ]
    spec, lacking = store.spec, list(store.quarantined().items())
    return FileSource(items, store.class_names, spec.stride, lacking, spec.square_pixels)


def open_sources(data: SplitDataConfig, store: str | None, val_store: str | None) -> Sources:
    """Both sources of a run.

    Raises UsageError for videos without labels or of unknown classes, and where every held-out
    video is a training video.
    """
    check_both(data, store, val_store)
    train = open_source(data, store, root=data.root, split=data.train_split)
    val_root = data.val_root or data.root
    val = open_source(data, val_store, root=val_root, split=data.val_split)
    check_labels(train, "training")
    relabel(val, train.class_names)
    check_labels(val, "held-out")
    warn_of_overlap(train.videos, val.videos)
    return Sources(train, val)


def warn_of_overlap(train: Videos, val: Videos, keys: str = VAL_KEYS) -> None:
    """Says how many held-out videos are training videos; UsageError where all of them are.

    keys  those that name the held-out videos
    The main process alone does it, since it asks the disk about every file.
    """
    if is_main():
        mend = f"name other videos by {keys}"
        if warning := check_overlap(train, val, mend):
            say(f"warning: {warning}")


def check_labels(source: Source, which: str) -> None:
    unlabelled = np.flatnonzero(source.labels < 0)
    if len(unlabelled):
        raise UsageError(
            f"{len(unlabelled)} {which} videos have no label, the first is "
            f"{source.ids[unlabelled[0]]}: leave them out of the data set's list"
        )


def relabel(source: Source, class_names: Sequence[str]) -> None:
    """Gives the source's labels the numbers of `class_names`; unknown classes are an error."""
    names = list(source.class_names)
    used = [names[label] for label in np.unique(source.labels[source.labels >= 0])]
    unknown = [name for name in used if name not in class_names]
    if unknown:
        raise UsageError(
            f"classes that the model does not know: {listed(unknown, 5)}; it knows "
            f"{len(class_names)} classes: {listed(class_names, 5)}; leave their videos out of the "
            "held-out data, or train on these classes too"
        )
    number = {name: list(class_names).index(name) for name in used}
    source.labels = np.array(
        [number[names[label]] if label >= 0 else label for label in source.labels], np.int64
    )
    source.class_names = class_names


def frame_stride(data_stride: int | None, source: Source) -> int:
    """Frame stride of a clip, counted in the source's frames.

    `data_stride` counts raw frames; None stands for the source's own stride. Raises UsageError
    where the store does not hold the frames of that stride.
    """
    stride = source.stride if data_stride is None else data_stride
    if stride < 1:
        raise UsageError(f"data.stride={stride} must be at least 1")
    if stride % source.step:
        raise UsageError(
            f"clips of data.stride={stride} cannot be read from a store of spec.stride="
            f"{source.step}: set a multiple of it, or data.frames=video data.root=…"
        )
    return stride // source.step
