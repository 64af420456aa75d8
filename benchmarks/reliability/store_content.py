"""Reads everything from a store, to compare it with the right content."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mme_core.io.place import open_place
from mme_core.store import TargetStore
from preprocess.ledger import Ledger


@dataclass
class Content:
    """Everything that a reader gets from a store."""

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    windows: list[bytes]
    metadata: dict[str, Any]  # the JSON files of the arrays, for other readers of Zarr
    ledger: list[dict[str, Any]]
    stale: bool  # will the next run write the ledger anew?

    @classmethod
    def read(cls, url: Path, root: str) -> Content:
        store = TargetStore(url)
        ledger = Ledger.load(open_place(url), store.spec.hash, root)
        names = ("dataset", "split", "class_names", "made_by")
        return cls(
            about={name: getattr(store, name) for name in names} | store.spec.to_dict(),
            rows=list(store.videos),
            windows=[_window(store, video) for video in range(len(store.videos))],
            metadata={str(path): _parsed(path) for path in url.rglob("zarr.json")},
            ledger=[asdict(row) for row in ledger],
            stale=ledger.stale,
        )

    def same(self, other: Content) -> bool:
        """Whether both are equal, except for times that the ledger lost and the shards lack."""
        mine, theirs = asdict(self), asdict(other)
        for own, their in zip(mine["ledger"], theirs["ledger"]):
            if own["seconds"] is None:
                own["seconds"] = their["seconds"]
        mine["stale"] = theirs["stale"] = False
        return mine == theirs


def _parsed(path: Path) -> Any:
    """Returns the content of a JSON file, or its bytes if it is damaged."""
    data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError:
        return data


def _window(store: TargetStore, video: int) -> bytes:
    """Returns every stored array of a video as bytes."""
    window = store.read_coded(video, 0, store.videos[video]["count"])
    arrays = [window.position, window.shape, window.moments, window.valid, window.pts]
    if window.homography is not None:
        arrays.append(window.homography)
    return b"".join(array.tobytes() for array in arrays) + b"".join(window.frames)
