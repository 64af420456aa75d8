"""The target store: what stage 1 writes and stage 2 reads (layout in docs/store.md).

store = TargetStore("out/k400")          # a path or an fsspec URL
window = store.read(video=0, start=0, tubelets=8)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from mme_core import cells as cell_arrays
from mme_core.errors import StoreError, UsageError
from mme_core.io.place import Place, open_place
from mme_core.io.remote import is_in_memory
from mme_core.spec import TUBELET, TargetSpec
from mme_core.store.agreement import check_shards
from mme_core.store.layout import FORMAT, LEDGER, SEALED_SINCE, STORE, layouts
from mme_core.store.pieces import StoredWindow
from mme_core.store.reader import ChunkReader
from mme_core.store.seal import blank, seal, unseal
from mme_core.store.table import VideoTable, finished_shards, load_table, read_quarantined
from mme_core.store.window import CodedWindow, Window

KEPT_FLOW = "kept_flow"  # in made_by: the store whose kept flow this one was made from
_MAKERS = ("mme", "numpy", "opencv-contrib-python-headless", "av", "zarr", "numcodecs")


class TargetStore:
    """A store opened for reading. Raises StoreError for what is not there, unfinished or damaged.

    spec         the TargetSpec it was made with
    videos       VideoTable of all finished shards at the time of opening
    class_names  names of the labels; () where there are none
    dataset, split   as given to stage 1

    It can be pickled, and used after a fork: it holds no open file and starts no thread. A copy
    in another process has the same table, also while shards are being added.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._place = open_place(url)
        self.url = self._place.url
        about = read_store_file(self._place)
        self.spec: TargetSpec = about["spec"]
        self.dataset: str = about["dataset"]
        self.split: str | None = about["split"]
        self.class_names: tuple[str, ...] = tuple(about["class_names"])
        self.made_by: dict[str, str] = about["made_by"]
        self.videos: VideoTable = load_table(self._place, self.spec.hash)
        if not len(self.videos):
            raise StoreError(f"{self.url} {_why_empty(self._place)}")
        self._layouts = layouts(self.spec)
        self._reader = ChunkReader(self._place)

    def __repr__(self) -> str:
        return f"TargetStore({self.url!r}, {len(self.videos)} videos)"

    def locate(self, video: int) -> tuple[TargetStore, int]:
        """Returns this store and the row. A union of stores returns the store of the video."""
        return self, video

    def read(self, video: int, start: int, tubelets: int) -> Window:
        """A window as float arrays; arguments as of `read_coded`."""
        return self.read_coded(video, start, tubelets, cells=self.spec.cells).decode()

    def read_coded(
        self,
        video: int,
        start: int,
        tubelets: int,
        *,
        frames: bool = True,
        cells: Sequence[str] = (),
    ) -> CodedWindow:
        """A window as stored: tubelets start, start + spec.clip_step, … of the video's time line.

        video     row of `videos`
        start     0 … count − span, span = (tubelets − 1) · clip_step + 1; a video shorter than
                  that starts at 0 and is padded by its last frame, with invalid trajectories
        frames    False leaves the frames unread
        cells     names of spec.cells to read as well

        Raises UsageError for a video or a start that is not there.
        """
        row = self._row(video, start, tubelets)
        step = self.spec.clip_step
        real, low, high = self._rows(row, start, tubelets)

        def take(name: str) -> np.ndarray:
            return self._reader.rows(row["shard"], self._layouts[name], low, high)[::step]

        def take_patches(name: str) -> np.ndarray:
            return _padded(take(name)[:, : row["hp"], : row["wp"]], tubelets)

        homography = None
        if "homography" in self._layouts:
            homography = _padded(take("homography"), tubelets)
            homography[real:] = np.eye(3, dtype=np.float32)
        pts = take("pts")
        still = np.repeat(pts[-1:, -1:], TUBELET, axis=1)
        return CodedWindow(
            position=take_patches("position"),
            shape=take_patches("shape"),
            moments=take_patches("moments"),
            valid=take_patches("valid"),
            pts=np.concatenate([pts, np.repeat(still, tubelets - real, axis=0)]),
            frames=self._frames(row["shard"], low, high, tubelets) if frames else (),
            homography=homography,
            video=row["id"],
            start=start,
            spec=self.spec,
            cells={name: take_patches(name) for name in cell_arrays.array_names(tuple(cells))},
        )

    def quarantined(self) -> dict[str, str]:
        """Returns {id: reason} of the videos that stage 1 could not use."""
        return read_quarantined(self._place, self.videos["id"].tolist())

    def open_window(
        self, video: int, start: int, tubelets: int, step: int | None = None
    ) -> StoredWindow:
        """A window to read piece by piece; arguments and errors as of `read_coded`.

        step  stored tubelets from one tubelet of the window to its next; default spec.clip_step
        """
        row, step = self._row(video, start, tubelets), step or self.spec.clip_step
        _, low, high = self._rows(row, start, tubelets, step)
        return self._window(row, low, high, step)

    def open_video(self, video: int) -> StoredWindow:
        """All tubelets of a video's time line, to read piece by piece."""
        row = self.videos[video]
        low, high = row["first"], row["first"] + row["count"]
        return self._window(row, low, high, 1)

    def _window(self, row: Mapping[str, Any], low: int, high: int, step: int) -> StoredWindow:
        return StoredWindow(self._reader, self._layouts, row, row["shard"], low, high, step)

    def read_frames(self, video: int, start: int, tubelets: int) -> tuple[bytes, ...]:
        """The coded frames of a window alone; arguments, padding and errors as of `read_coded`."""
        row = self._row(video, start, tubelets)
        _, low, high = self._rows(row, start, tubelets)
        return self._frames(row["shard"], low, high, tubelets)

    def _rows(
        self, row: dict[str, Any], start: int, tubelets: int, step: int | None = None
    ) -> tuple[int, int, int]:
        """Returns how many of the window's tubelets the video has, and their rows low, high.

        `high` is exclusive.
        """
        step = step or self.spec.clip_step
        real = min(tubelets, (row["count"] - 1 - start) // step + 1)
        low = row["first"] + start
        return real, low, low + (real - 1) * step + 1

    def _row(self, video: int, start: int, tubelets: int) -> dict[str, Any]:
        if tubelets < 1:
            raise UsageError(f"tubelets={tubelets}: a window has at least one")
        if not 0 <= video < len(self.videos):
            raise UsageError(f"video={video} is not in 0 … {len(self.videos) - 1} of {self.url}")
        row = self.videos[int(video)]
        last = max(row["count"] - (tubelets - 1) * self.spec.clip_step - 1, 0)
        if not 0 <= start <= last:
            raise UsageError(
                f"start={start} is not in 0 … {last}: {row['id']} has {row['count']} tubelets, "
                f"and {tubelets} were asked for"
            )
        return row

    def _frames(self, shard: int, low: int, high: int, tubelets: int) -> tuple[bytes, ...]:
        """Coded frames of the tubelets low, low + clip_step, … high − 1, padded to `tubelets`."""
        if "frames" not in self._layouts:
            return ()
        step = self.spec.clip_step
        window = StoredWindow(self._reader, self._layouts, {}, shard, low, high, step)
        coded = tuple(frame.tobytes() for frame in window.frames())
        return coded + (coded[-1],) * (TUBELET * tubelets - len(coded))


def _why_no_store(place: Place) -> str:
    if is_in_memory(place.url):
        return "is not in the memory of this process; no other process can see a memory:// store"
    what = "is not a store (no store.json in it)" if place.exists() else "does not exist"
    return f"{what}; check the path, or make a store with `mme flows`"


def _why_empty(place: Place) -> str:
    if finished_shards(place):
        return f"holds no video: all are quarantined, and {LEDGER} says why"
    return "has no finished shard yet: is it being written? `mme flows` goes on where it stopped"


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """A copy with zeros after the rows, up to `length` of them."""
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded


def read_store_file(place: Place) -> dict[str, Any]:
    """store.json with `spec` as a TargetSpec.

    Raises StoreError where it is missing, damaged, of a newer format, or changed by hand.
    """
    try:
        text = place.read(STORE)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{place.url} {_why_no_store(place)}") from None
    try:
        about, sealed = unseal(text)
        version = int(about["format"])
        if version > FORMAT:
            raise StoreError(
                f"{place.at(STORE)} has format {version}, newer than this program's {FORMAT}: "
                "update mme"
            )
        if version >= SEALED_SINCE and not sealed:
            raise ValueError("it has no digest")
        spec = TargetSpec.from_dict(about["spec"])
        stored_hash = about["spec_hash"]
        about = {name: about[name] for name in ("dataset", "split", "class_names", "made_by")}
    except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{place.at(STORE)} is damaged ({error}); remove it and run the same `mme flows` "
            "command again, which writes it anew and keeps the shards"
        ) from error
    if stored_hash != spec.hash:
        raise StoreError(
            f"{place.at(STORE)}: the specification does not have the hash written beside it "
            f"({stored_hash}); it was changed by hand. Undo that: the shards were made with "
            "the old one"
        )
    return {**about, "spec": spec}


def open_or_create_store(
    url: str | os.PathLike[str],
    spec: TargetSpec,
    dataset: str,
    split: str | None,
    class_names: Sequence[str],
    kept_flow: str = "",
) -> None:
    """Makes an empty store, or checks that the existing one was made with the same arguments.

    kept_flow  the store whose kept flow the targets are made from; "": flow is computed

    Raises StoreError, which lists the arguments that differ, or names a shard where only the shards
    are left of the store.
    """
    place = open_place(url)
    if not place.exists(STORE):
        check_shards(place, spec.hash)
        about = {
            "format": FORMAT,
            "spec": spec.to_dict(),
            "spec_hash": spec.hash,
            "dataset": dataset,
            "split": split,
            "class_names": list(class_names),
            "made_by": _versions() | ({KEPT_FLOW: kept_flow} if kept_flow else {}),
            **blank(),
        }
        place.write(STORE, seal(about))
        return
    there = read_store_file(place)
    fields = spec.differences(there["spec"], "asked for", "in the store")
    differences = [f"spec.{text}" for text in fields]
    there[KEPT_FLOW] = there["made_by"].get(KEPT_FLOW, "none")
    here = {
        KEPT_FLOW: kept_flow or "none",
        "dataset": dataset,
        "split": split,
        "class_names": list(class_names),
    }
    differences += [
        f"{name}: {value} asked for, {there[name]} in the store"
        for name, value in here.items()
        if value != there[name]
    ]
    if differences:
        mend = "Use another store, or the arguments it was made with"
        if not place.names("shards"):
            mend += f"; or remove {place.at(STORE)}: there is no shard yet"
        raise StoreError(f"{place.url} was made another way: {'; '.join(differences)}. {mend}")


def _versions() -> dict[str, str]:
    found = {}
    for name in _MAKERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
