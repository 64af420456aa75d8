"""Several stores read as one, for pre-training on the videos of all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mme_core.errors import StoreError, UsageError
from mme_core.spec import TargetSpec
from mme_core.store.pieces import StoredWindow
from mme_core.store.table import COLUMNS, VideoTable
from mme_core.store.target_store import TargetStore
from mme_core.store.window import CodedWindow

CODING = ("frames", "jpeg_quality")  # how frames are coded, which no target depends on

# What the stores of a union may differ in: the size of the canvas, how points are followed, and how
# frames are coded.
_FREE = (
    "short_side",
    "long_side",
    "flow",
    "flow_weights",
    "tracks",
    "check",
    *CODING,
    "square_pixels",
)


class StoreUnion:
    """The videos of several stores, numbered one store after the other.

    stores       TargetStores, or their paths or URLs; at least two
    spec         of the first store; the others may differ in their canvas, in the flow, and in how
                 frames are coded
    videos       VideoTable of all: an id begins with its store's name, and shards are numbered one
                 store after the other
    class_names  of the stores where these are equal, else (), and all labels are −1
    url          all URLs, for messages

    Raises UsageError for a store given twice, StoreError for specifications that do not agree.
    """

    def __init__(self, stores: Sequence[TargetStore | str | os.PathLike[str]]) -> None:
        opened = [s if isinstance(s, TargetStore) else TargetStore(s) for s in stores]
        if len(opened) < 2:
            raise UsageError("a union needs at least two stores")
        twice = [url for url, count in Counter(store.url for store in opened).items() if count > 1]
        if twice:
            raise UsageError(f"store {twice[0]} is named twice: weights make a store count more")
        for store in opened[1:]:
            check_agreement(opened[0], store)
        self.stores = tuple(opened)
        self.spec: TargetSpec = opened[0].spec
        self.url = ", ".join(store.url for store in opened)
        self._first = np.cumsum([0, *(len(store.videos) for store in opened)])
        names = {store.class_names for store in opened}
        self.class_names = names.pop() if len(names) == 1 else ()
        self.videos = VideoTable.join([self._table(number) for number in range(len(opened))])

    def __repr__(self) -> str:
        return f"StoreUnion({self.url!r}, {len(self.videos)} videos)"

    def locate(self, video: int) -> tuple[TargetStore, int]:
        """The store that holds a video, and the video's row there."""
        if not 0 <= video < len(self.videos):
            raise UsageError(f"video={video} is not in 0 … {len(self.videos) - 1} of {self.url}")
        number = int(np.searchsorted(self._first, video, side="right")) - 1
        return self.stores[number], int(video - self._first[number])

    def read_coded(
        self,
        video: int,
        start: int,
        tubelets: int,
        *,
        frames: bool = True,
        cells: Sequence[str] = (),
    ) -> CodedWindow:
        """As `TargetStore.read_coded`, from the store that holds the video."""
        store, row = self.locate(video)
        return store.read_coded(row, start, tubelets, frames=frames, cells=cells)

    def open_window(
        self, video: int, start: int, tubelets: int, step: int | None = None
    ) -> StoredWindow:
        """As `TargetStore.open_window`, from the store that holds the video."""
        store, row = self.locate(video)
        return replace(store.open_window(row, start, tubelets, step), row=self.videos[video])

    def open_video(self, video: int) -> StoredWindow:
        """As `TargetStore.open_video`, from the store that holds the video."""
        store, row = self.locate(video)
        return replace(store.open_video(row), row=self.videos[video])

    def _table(self, number: int) -> VideoTable:
        """Returns a store's rows as rows of the union."""
        table = self.stores[number].videos
        columns = {name: table[name] for name in COLUMNS}
        name = short_names([store.url for store in self.stores])[number]
        columns["id"] = np.array([f"{name}/{one}" for one in table["id"]], object)
        shards = [int(store.videos["shard"].max()) + 1 for store in self.stores[:number]]
        columns["shard"] = table["shard"] + sum(shards)
        if not self.class_names:
            columns["label"] = np.full(len(table), -1)
        return VideoTable(columns)


def open_stores(
    stores: TargetStore | StoreUnion | str | os.PathLike[str],
) -> TargetStore | StoreUnion:
    """Opens the store at a path or URL. An opened store is returned as it is."""
    return stores if isinstance(stores, TargetStore | StoreUnion) else TargetStore(stores)


def parts(store: TargetStore | StoreUnion) -> Sequence[TargetStore]:
    """Returns the stores of a union, or the store alone."""
    return store.stores if isinstance(store, StoreUnion) else (store,)


def check_agreement(first: TargetStore, other: TargetStore) -> None:
    """Raises StoreError naming a field in which two stores must agree and do not."""
    for name, (theirs, mine) in other.spec.differing(first.spec).items():
        both = f"{other.url} has spec.{name}={theirs} and {first.url} has spec.{name}={mine}"
        if name == "frames" and "none" in (theirs, mine):
            raise StoreError(f"{both}: stores that are read as one must all have frames, or none")
        if name not in _FREE:
            raise StoreError(
                f"{both}: stores that are read as one may differ in {', '.join(_FREE)} alone"
            )


def short_names(urls: Sequence[str]) -> list[str]:
    """Returns the last part of each URL, or the whole URL where two stores share that part."""
    last = [url.rstrip("/").rpartition("/")[2] for url in urls]
    return [name if last.count(name) == 1 else url for name, url in zip(last, urls)]
