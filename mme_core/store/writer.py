"""Writing one shard of a store: all targets of some videos, complete or absent.

On a local disk a shard is written beside its final name and renamed when it is finished. On an
object store, where there is no renaming, the group's metadata is written last; a reader takes a
shard without it for absent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from mme_core.io.place import Place
from mme_core.spec import TargetSpec
from mme_core.store.layout import FORMAT, ArrayLayout, layouts, shard_name
from mme_core.targets import round_moments

if TYPE_CHECKING:
    from mme_core.extract.video_targets import TubeletTargets

# What the caller of `end_video` says about a video; the writer knows the rest of the row.
ROW_FIELDS = ("id", "path", "label", "fps", "height", "width", "frames", "warnings")
_PARTIAL = ".partial-"


class ShardWriter:
    """Writes shard number `shard` of the store at `url`, one video after the other.

        with ShardWriter(url, 3, spec) as writer:
            writer.begin_video()
            for tubelet in tubelets:
                writer.append(tubelet)
            writer.end_video(row)          # or writer.abandon_video()

    Leaving the block finishes the shard; leaving it by an exception discards it. An abandoned
    video leaves no trace, so that the bytes do not depend on when a time limit struck. Memory:
    two files of each array, whatever the length of the videos and of the shard.

    Two writers of one shard may run at once (a task taken for dead, and its successor): they write
    the same bytes, and the first to finish counts.
    """

    def __init__(self, url: str | os.PathLike[str], shard: int, spec: TargetSpec) -> None:
        self._spec = spec
        self._place = Place(url)
        self._name = shard_name(shard)
        self._folder = self._name
        if self._place.local is not None:
            owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self._folder += f"{_PARTIAL}{owner}"
        self._arrays = {
            name: _ArrayWriter(self._place, self._folder, layout)
            for name, layout in layouts(spec).items()
        }
        self._rows: list[dict[str, Any]] = []
        self._quarantined: list[dict[str, Any]] = []
        self._tubelets = 0
        self._frame_bytes = 0
        self._video: tuple[int, int] | None = None  # tubelets and frame bytes before it
        self._patches: tuple[int, int] | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:  # a full disk, most likely: give the space back
            self._discard()
            raise

    def begin_video(self) -> None:
        if self._video is not None:
            raise ValueError("begin_video before the end of the last one")
        self._video, self._patches = (self._tubelets, self._frame_bytes), None
        for array in self._arrays.values():
            array.mark()

    def append(self, tubelet: TubeletTargets) -> None:
        """The next tubelet on the video's time line, [Hp, Wp, …]; Hp and Wp must not change."""
        if self._video is None:
            raise ValueError("append outside of a video")
        hp, wp = tubelet.valid.shape
        if self._patches not in (None, (hp, wp)):
            raise ValueError(f"a tubelet of {hp}×{wp} patches in a video of {self._patches}")
        self._patches = hp, wp
        for name in ("position", "shape", "valid"):
            self._append_patches(name, getattr(tubelet, name))
        self._append_patches("moments", round_moments(tubelet.moments, self._spec))
        self._arrays["pts"].extend(np.asarray(tubelet.pts, np.int64)[None])
        if "frames" in self._arrays:
            self._append_frames(tubelet.frames)
        if "homography" in self._arrays:
            self._arrays["homography"].extend(tubelet.homography[None])
        self._tubelets += 1

    def end_video(self, row: Mapping[str, Any]) -> None:
        """Closes the video; `row` holds ROW_FIELDS. A video must have at least one tubelet."""
        if self._video is None or self._patches is None:
            raise ValueError("end_video without a tubelet")
        if set(row) != set(ROW_FIELDS):
            raise ValueError(f"a row holds {ROW_FIELDS}, not {tuple(row)}")
        first = self._video[0]
        hp, wp = self._patches
        placed = {"first": first, "count": self._tubelets - first, "hp": hp, "wp": wp}
        self._rows.append({name: row[name] for name in ROW_FIELDS} | placed)
        self._video = None

    def abandon_video(self) -> None:
        """Takes back all of the video that was begun."""
        if self._video is None:
            raise ValueError("abandon_video outside of a video")
        self._tubelets, self._frame_bytes = self._video
        self._video = None
        for array in self._arrays.values():
            array.rewind()

    def quarantine(self, row: Mapping[str, Any]) -> None:
        """Notes a video that the shard answers for but does not hold: id, path, label, reason.

        So the ledger can be made again from the shards.
        """
        self._quarantined.append(dict(row))

    def _append_patches(self, name: str, values: np.ndarray) -> None:
        padded = np.zeros((1, *self._arrays[name].layout.row), self._arrays[name].layout.dtype)
        padded[0, : values.shape[0], : values.shape[1]] = values
        self._arrays[name].extend(padded)

    def _append_frames(self, frames: tuple[bytes, ...]) -> None:
        ends = self._frame_bytes + np.cumsum([len(frame) for frame in frames])
        self._arrays["frames"].extend(np.frombuffer(b"".join(frames), np.uint8))
        self._arrays["frame_ends"].extend(ends)
        self._frame_bytes = int(ends[-1])

    def _finish(self) -> None:
        if self._video is not None:
            raise ValueError("the shard ends inside a video")
        for array in self._arrays.values():
            array.finish()
        if self._place.local is None:
            self._remove_strays()
        attributes = {
            "format": FORMAT,
            "spec_hash": self._spec.hash,
            "tubelets": self._tubelets,
            "frame_bytes": self._frame_bytes,
            "videos": self._rows,
            "quarantined": self._quarantined,
        }
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        text = json.dumps(group, indent=1)  # in ASCII: a file's name need not be valid UTF-8
        self._place.write(f"{self._folder}/zarr.json", text.encode())
        if self._place.local is not None:
            self._rename()

    def _remove_strays(self) -> None:
        """What a writer that died here had written of a video that is now quarantined."""
        mine = {f"{name}/{key}" for name, array in self._arrays.items() for key in array.keys}
        for name in self._place.files(self._folder).keys() - mine - {"zarr.json"}:
            self._place.remove(f"{self._folder}/{name}")

    def _rename(self) -> None:
        source, target = self._place.local / self._folder, self._place.local / self._name
        try:
            source.rename(target)
        except OSError:
            if not (target / "zarr.json").exists():
                self._discard()
                raise
            self._discard()  # another writer of this shard was first, with the same bytes

    def _discard(self) -> None:
        if self._place.local is not None:
            shutil.rmtree(self._place.local / self._folder, ignore_errors=True)


class _ArrayWriter:
    """Rows of one array, gathered and written a file at a time.

    Zarr codes into memory, and whole files go out from there: so each is written once, whatever
    an earlier writer left under its name, and the array's metadata with the final length at the
    end.
    """

    def __init__(self, place: Place, folder: str, layout: ArrayLayout) -> None:
        self.layout = layout
        self._place = place
        self._folder = folder
        self._coded: dict[str, Buffer] = {}
        self._array = zarr.create_array(MemoryStore(self._coded), **layout.zarr_options())
        self._buffer = np.zeros((layout.file, *layout.row), layout.dtype)
        self._filled = 0
        self._files = 0
        self._mark = (0, 0)
        self._kept: np.ndarray | None = None  # the buffer at the mark, once its file was written

    def extend(self, rows: np.ndarray) -> None:
        while len(rows):
            fits = rows[: self.layout.file - self._filled]
            self._buffer[self._filled : self._filled + len(fits)] = fits
            self._filled += len(fits)
            rows = rows[len(fits) :]
            if self._filled == self.layout.file:
                self._write_file()
                if self._files == self._mark[0] + 1 and self._mark[1]:
                    self._kept, self._buffer = self._buffer, np.zeros_like(self._buffer)
                self._filled = 0

    def mark(self) -> None:
        """`rewind` comes back to here."""
        self._mark, self._kept = (self._files, self._filled), None

    def rewind(self) -> None:
        files, filled = self._mark
        for file in range(files, self._files):
            self._place.remove(f"{self._folder}/{self.layout.key(file)}")
        if self._kept is not None:
            self._buffer = self._kept
        self._files, self._filled, self._kept = files, filled, None

    @property
    def keys(self) -> list[str]:
        """Its files, once it is finished."""
        names = [self.layout.key(file).partition("/")[2] for file in range(self._files)]
        return [*names, "zarr.json"]

    def finish(self) -> None:
        """Writes what is left, and the metadata."""
        rows = self._files * self.layout.file + self._filled
        if self._filled:
            self._write_file()
        self._array.resize((rows, *self.layout.row))
        self._write("zarr.json")

    def _write_file(self) -> None:
        start = self._files * self.layout.file
        stop = start + self._filled
        self._array.resize((stop, *self.layout.row))
        with zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1}):
            self._array[start:stop] = self._buffer[: self._filled]
        self._write(self.layout.key(self._files).partition("/")[2])
        self._files += 1

    def _write(self, key: str) -> None:
        self._place.write(f"{self._folder}/{self.layout.name}/{key}", self._coded[key].to_bytes())
        if key != "zarr.json":
            del self._coded[key]


def leftovers(url: str | os.PathLike[str]) -> list[str]:
    """Folders of writers that never finished, relative to the store, sorted.

    On an object store, where a shard is written in place, these are shards without their metadata.
    """
    place = Place(url)
    names = [f"shards/{name}" for name in place.names("shards")]
    if place.local is not None:
        return [name for name in names if _PARTIAL in name]
    stamps = place.stamps([f"{name}/zarr.json" for name in names])
    return [name for name, stamp in zip(names, stamps) if not stamp]


def remove_leftovers(url: str | os.PathLike[str]) -> list[str]:
    """Removes `leftovers` and returns them. No other writer of this store may be at work."""
    names = leftovers(url)
    for name in names:
        Place(url).remove(name)
    return names
