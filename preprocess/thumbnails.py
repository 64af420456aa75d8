"""One picture of each video that `mme features` read, from its store or its files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

from mme_core.datasets import load_manifest
from mme_core.errors import MMEError, UsageError, VideoError
from mme_core.frame_codec import decode_frames
from mme_core.io.place import open_place
from mme_core.io.remote import join
from mme_core.io.video import open_video
from mme_core.store import TargetStore
from mme_core.store.layout import STORE

FRAME = 15  # half a second into a file: the first frames may be black


def pictures_of(recipe: str, root: str | None) -> Callable[[str], np.ndarray | None]:
    """A function from a video's id to a frame of it, RGB uint8 [H, W, 3]; None: it has none.

    recipe  of `mme features`, as YAML
    root    folder of the videos, or the store, if it is another one than in the recipe
    Raises MMEError where the store or the folder is not there.
    """
    config = yaml.safe_load(recipe) or {}
    data = config.get("data", {})
    url = config.get("store")
    if url and root and _is_store(root):
        url, root = root, None
    root = root or data.get("root")
    if url:
        if not _is_store(url):
            raise UsageError(f"{url}: the features' store is not there; name its place by --root")
        store = TargetStore(url)
        if store.spec.frames != "none":
            return lambda name: _from_store(store, name)
        paths = {row["id"]: join(root or "", row["path"]) for row in store.videos}
    else:
        paths = _paths(data, root, config.get("split"))
    return lambda name: _from_file(paths.get(name))


def _is_store(url: str) -> bool:
    return open_place(url).exists(STORE)


def _paths(data: dict[str, Any], root: str | None, split: str | None) -> dict[str, str]:
    if not data.get("dataset"):
        raise UsageError("the features do not say where their videos are: make them again")
    manifest = load_manifest(data["dataset"], root or "", split)
    return {item.id: item.path for item in manifest.items}


def _from_store(store: TargetStore, name: str) -> np.ndarray | None:
    try:
        row = store.videos.find(name)
        return decode_frames(store.read_frames(row, int(store.videos["count"][row]) // 2, 1))[0]
    except MMEError:
        return None


def _from_file(path: str | None) -> np.ndarray | None:
    """Frame FRAME of a video, or its last one."""
    if path is None:
        return None
    image = None
    try:
        with open_video(path) as video:
            for frame in video:
                image = frame.rgb()
                if frame.number == FRAME:
                    break
    except VideoError:
        return None
    return image
