"""Writing one shard of a store: all targets of some videos, complete or absent.

The group's metadata is written last. On a local disk the shard is then renamed to its final name;
on an object store, where there is no renaming, readers ignore a shard without this metadata.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mme_core import cells
from mme_core.errors import StoreError, UsageError
from mme_core.extract.kept_flow import FlowFile
from mme_core.io.place import local_path, open_place, sync
from mme_core.spec import TargetSpec
from mme_core.store.array_writer import ArrayWriter
from mme_core.store.layout import FORMAT, flow_name, layouts, shard_name
from mme_core.store.seal import blank, seal
from mme_core.targets import round_moments

if TYPE_CHECKING:
    from mme_core.extract.results import TubeletTargets

# The fields of a row that the caller of `end_video` gives; the writer knows the others.
ROW_FIELDS = ("id", "path", "label", "fps", "height", "width", "frames", "warnings")
_FLOW_ASIDE = "flow.h5"  # where a shard's flow is written until the shard is complete
MARKER = "zarr.json"  # of a shard: written last, and read first


class ShardWriter:
    """Writes shard number `shard` of the store at `url`, one video after the other.

        with ShardWriter(url, 3, spec) as writer:
            writer.begin_video()
            for tubelet in tubelets:
                writer.append(tubelet)
            writer.end_video(row)          # or writer.abandon_video()

    With `keep_flow`, `keep` takes the flow of the video's frame pairs, for a file beside the shards
    (`mme_core.extract.kept_flow`); the store must be a folder on a disk.

    Leaving the block finishes the shard; leaving it by an exception discards it. An abandoned
    video leaves no trace, so that the bytes do not depend on when a time limit struck. Memory:
    two files of each array, whatever the length of the videos and of the shard.

    Two writers of one shard may run at once (a task taken for dead, and its successor): they write
    the same bytes, and the first to finish counts.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        shard: int,
        spec: TargetSpec,
        keep_flow: bool = False,
        check: Callable[[], object] | None = None,
    ) -> None:
        """check: called before the shard or its flow appears; if it raises an error, none does."""
        self._spec: TargetSpec = spec
        self._check: Callable[[], object] = check or (lambda: None)
        self._place = open_place(url)
        self._name, self._flow_name = shard_name(shard), flow_name(shard)
        self._folder = self._place.begin(self._name)
        self._arrays = {
            name: ArrayWriter(self._place, self._folder, layout)
            for name, layout in layouts(spec).items()
        }
        self._flow = FlowFile(_on_disk(url) / self._folder / _FLOW_ASIDE) if keep_flow else None
        self._store = url
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

    def _discard(self) -> None:
        if self._flow:
            with contextlib.suppress(StoreError):  # a full disk, and another error is on its way
                self._flow.close()
        self._place.discard(self._folder)

    def begin_video(self) -> None:
        if self._video is not None:
            raise ValueError("begin_video before the end of the last one")
        self._video, self._patches = (self._tubelets, self._frame_bytes), None
        for array in self._arrays.values():
            array.mark()

    def keep(self, flow_HW2: np.ndarray) -> None:
        """The flow of the video's next frame pair, float32, pixels."""
        assert self._flow is not None  # the caller asked for it
        self._flow.add(flow_HW2)

    def append(self, tubelet: TubeletTargets) -> None:
        """The next tubelet on the video's time line, [Hp, Wp, …]; Hp and Wp must not change."""
        if self._video is None:
            raise ValueError("append outside of a video")
        hp, wp = tubelet.valid.shape
        if self._patches not in (None, (hp, wp)):
            raise ValueError(f"a tubelet of {hp}×{wp} patches in a video of {self._patches}")
        self._patches = hp, wp
        for name in ("position", "shape", "valid"):
            self._arrays[name].extend(getattr(tubelet, name)[None])
        self._arrays["moments"].extend(round_moments(tubelet.moments, self._spec)[None])
        for name in cells.array_names(self._spec.cells):
            self._arrays[name].extend(tubelet.cells[name][None])
        self._arrays["pts"].extend(np.asarray(tubelet.pts, np.int64)[None])
        if "frames" in self._arrays:
            self._append_frames(tubelet.frames)
        if "homography" in self._arrays:
            assert tubelet.homography is not None  # the specification asks for it
            self._arrays["homography"].extend(tubelet.homography[None])
        self._tubelets += 1

    def end_video(self, row: Mapping[str, Any], first_frame: int = 0) -> None:
        """Closes the video; `row` holds ROW_FIELDS. A video must have at least one tubelet.

        first_frame  number in the file of the video's first frame
        """
        if self._video is None or self._patches is None:
            raise ValueError("end_video without a tubelet")
        if set(row) != set(ROW_FIELDS):
            raise ValueError(f"a row holds {ROW_FIELDS}, not {tuple(row)}")
        first = self._video[0]
        hp, wp = self._patches
        placed = {"first": first, "count": self._tubelets - first, "hp": hp, "wp": wp}
        skipped = {"first_frame": first_frame} if first_frame else {}
        self._rows.append({name: row[name] for name in ROW_FIELDS} | placed | skipped)
        if self._flow:
            self._flow.end(row["id"])
        self._video = None

    def abandon_video(self) -> None:
        """Takes back all of the video that was begun."""
        if self._video is None:
            raise ValueError("abandon_video outside of a video")
        self._tubelets, self._frame_bytes = self._video
        self._video = None
        for array in self._arrays.values():
            array.rewind()
        if self._flow:
            self._flow.abandon()

    def quarantine(self, row: Mapping[str, Any]) -> None:
        """Notes a video of this shard that is left out: id, path, label, reason.

        So the ledger can be made again from the shards.
        """
        self._quarantined.append(dict(row))

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
        self._finish_flow()
        self._remove_strays()
        attributes = {
            "format": FORMAT,
            "spec_hash": self._spec.hash,
            "tubelets": self._tubelets,
            "frame_bytes": self._frame_bytes,
            "videos": self._rows,
            "quarantined": self._quarantined,
            **blank(),
        }
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        self._check()
        self._place.write(f"{self._folder}/{MARKER}", seal(group))
        self._place.commit(self._folder, self._name, MARKER)

    def _finish_flow(self) -> None:
        """Moves the file of flow to its place. A committed shard must have its flow there."""
        if self._flow is None:
            return
        self._flow.close()
        self._check()  # else it would replace the flow of a shard that another driver has finished
        store = _on_disk(self._store)
        target = store / self._flow_name
        target.parent.mkdir(exist_ok=True)
        (store / self._folder / _FLOW_ASIDE).replace(target)
        for folder in (target.parent, store):  # before the shard: it may not survive its flow
            sync(folder)

    def _remove_strays(self) -> None:
        """Removes files that a writer which died here left of a video that is now quarantined."""
        mine = {f"{name}/{key}" for name, array in self._arrays.items() for key in array.keys}
        for name in self._place.files(self._folder).keys() - mine - {MARKER}:
            self._place.remove(f"{self._folder}/{name}")


def _on_disk(url: str | os.PathLike[str]) -> Path:
    path = local_path(url)
    if path is None:
        raise UsageError(f"{url}: flow is kept in a store on a disk only; copy it there afterwards")
    return path
