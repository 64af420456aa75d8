"""Optical flow on the disk: the flow of a shard's videos in one HDF5 file.

Each video is a dataset `0`, `1`, … of int16 [pairs, ⌈H / 2⌉, ⌈W / 2⌉, 2]: x and y of the flow from
raw frame r to r + 1, in steps of STEP pixels. A number is the mean of 2 × 2 pixels of the region of
H × W pixels (see `mme_core.canvas`). DIS computes its flow at half the resolution or less; other
flow loses the sharpness of its edges. A chunk is one frame pair, compressed with HDF5's filters
shuffle and deflate; zlib notices damage when it decompresses. The attributes of a dataset are `id`
of the video, `step`, `height` and `width` of the region. docs/flows.md shows how to read it, and
the error.
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mme_core.errors import StoreError, VideoError

if TYPE_CHECKING:
    import h5py

STEP = 1 / 64  # canvas pixels; rounding moves a number by half of it at most
SCALE = 2  # pixels of the region along a side of a stored one
_MOST = 2**15 - 1
# What h5py and zlib raise for damage.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, zlib.error)


def kept_size(region: tuple[int, ...]) -> tuple[int, int]:
    """Returns the (height, width) at which the flow of a region of (height, width) is kept."""
    return -(-region[0] // SCALE), -(-region[1] // SCALE)


class FlowFile:
    """Writes the flow of one shard's videos, one after the other, to a new file.

    An abandoned video's space is used by the next one. Raises StoreError where the disk is full or
    fails.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = h5py.File(path, "w")
        self._videos, self._pairs = 0, 0

    def add(self, flow_HW2: np.ndarray) -> None:
        """Takes the flow of the video's next frame pair, float32 [H, W, 2], pixels.

        Flow is limited to 511 pixels a frame.
        """
        size = kept_size(flow_HW2.shape)
        small = cv2.resize(flow_HW2, size[::-1], interpolation=cv2.INTER_AREA)
        codes = np.rint(small * np.float32(1 / STEP))
        codes = np.clip(codes, -_MOST, _MOST, out=codes).astype(np.int16)
        with self._writing():
            dataset = self._dataset(codes.shape, flow_HW2.shape)
            dataset.resize(self._pairs + 1, axis=0)
            dataset[self._pairs] = codes
        self._pairs += 1

    def end(self, video: str) -> None:
        """Closes the video with this id."""
        with self._writing():
            self._file[str(self._videos)].attrs["id"] = video
        self._videos, self._pairs = self._videos + 1, 0

    def abandon(self) -> None:
        """Takes back all of the video that was begun."""
        if self._pairs:
            del self._file[str(self._videos)]
        self._pairs = 0

    def close(self) -> None:
        """Closes the file and waits until it would survive a power cut."""
        with self._writing():
            self._file.close()
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the file become StoreError."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise StoreError(f"cannot write to {self._path}: {error}") from error

    def _dataset(self, shape: tuple[int, ...], region: tuple[int, ...]) -> h5py.Dataset:
        name = str(self._videos)
        if self._pairs:
            return self._file[name]
        made = self._file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape),
            dtype="<i2",
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        made.attrs.update({"step": STEP, "height": region[0], "width": region[1]})
        return made


class KeptFlow:
    """The flow of one video, read from the file at `path`; a context manager.

    Raises StoreError where the file is missing or damaged, or lacks the video with this id.
    """

    def __init__(self, path: str, video: str) -> None:
        self._path, self._video = path, video
        self._file, self._dataset = _open(path, video)
        about = self._dataset.attrs
        self._step = np.float32(about["step"])
        self._region = int(about["height"]), int(about["width"])
        self._pairs, *self._size = self._dataset.shape

    def __enter__(self) -> KeptFlow:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, number: int, before: np.ndarray, luma: np.ndarray) -> np.ndarray:
        """Returns the flow from raw frame `number` to the next one, float32 [H, W, 2].

        `before` and `luma` are the two frames. Raises VideoError where the kept flow cannot be
        theirs.
        """
        if number >= self._pairs or self._region != luma.shape:
            raise VideoError(self._changed(f"a frame {number + 1} of {luma.shape}"))
        try:
            codes = self._codes(number)
        except _DAMAGE as error:
            raise StoreError(_damaged(self._path, f"pair {number} of {self._video}")) from error
        small = codes.astype(np.float32)
        small *= self._step
        return cv2.resize(small, self._region[::-1], interpolation=cv2.INTER_LINEAR)

    def check_end(self, frames: int) -> None:
        """Raises VideoError where the video did not have `frames` frames."""
        if frames - 1 != self._pairs:
            raise VideoError(self._changed(f"{frames} frames"))

    def _codes(self, number: int) -> np.ndarray:
        """Returns the int16 numbers of a pair. Undoing the filters here is faster than HDF5."""
        _, packed = self._dataset.id.read_direct_chunk((number, 0, 0, 0))
        size = 2 * math.prod(self._size)
        shuffled = np.frombuffer(zlib.decompress(packed, bufsize=size), np.uint8)
        low, high = shuffled.reshape(2, -1)  # all low bytes come first
        return cv2.merge([low, high]).view("<i2").reshape(self._size)

    def _changed(self, found: str) -> str:
        return (
            f"the file has {found}, and {self._path} holds the flow of {self._pairs + 1} "
            f"frames of {self._region}: the video was changed since"
        )


def read_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Reads a whole file and returns {id: shape of its dataset}. Raises StoreError for damage."""
    import h5py

    shapes = {}
    try:
        with h5py.File(path) as file:
            for name in file:
                dataset = file[name]
                for pair in range(len(dataset)):
                    dataset[pair]
                shapes[str(dataset.attrs["id"])] = dataset.shape
    except _DAMAGE as error:
        raise StoreError(_damaged(path, str(error) or type(error).__name__)) from error
    return shapes


def _open(path: str, video: str) -> tuple[Any, Any]:
    import h5py

    try:
        file = h5py.File(path)
    except _DAMAGE as error:
        raise StoreError(_damaged(path, str(error))) from error
    try:
        for dataset in file.values():
            if dataset.attrs["id"] == video:
                return file, dataset
    except _DAMAGE as error:
        file.close()
        raise StoreError(_damaged(path, str(error))) from error
    file.close()
    raise StoreError(f"{path} holds no flow of {video}; `mme repair` makes it anew")


def _damaged(path: str, what: str) -> str:
    return f"{path} is missing or damaged ({what}); `mme repair` makes it anew"
