"""Data sets as manifests: which videos there are, where, and with which label.

`load_manifest` is the only entry; a data set is a row of `LOADERS`, whose module has a function
`load(root, split, **options) -> Manifest`.
"""

from __future__ import annotations

import importlib
from typing import Any

from mme_core.datasets.manifest import Manifest, VideoItem, missing_root
from mme_core.errors import UsageError

__all__ = ["LOADERS", "Manifest", "VideoItem", "load_manifest"]

LOADERS = {
    "folder": "mme_core.datasets.folder",
    "csv": "mme_core.datasets.csvlist",
    "demo": "mme_core.datasets.demo",
}


def load_manifest(dataset: str, root: str, split: str | None = None, **options: Any) -> Manifest:
    """The videos of a data set, sorted by id.

    dataset   a name of `LOADERS`
    root      its folder; it need not exist for `demo`, which makes it
    split     None: every video
    options   what the data set's `load` takes besides, such as `videos` for `demo`

    Raises UsageError for an unknown data set, a missing folder, a bad list, or no video at all.
    """
    if dataset not in LOADERS:
        raise UsageError(f"'{dataset}' is not a data set; there are {', '.join(LOADERS)}")
    if not str(root):
        raise UsageError(missing_root(dataset))
    manifest = importlib.import_module(LOADERS[dataset]).load(str(root), split, **options)
    if not manifest.items:
        where = f"{root}" + (f", split '{split}'" if split else "")
        raise UsageError(f"no video in {where}; a video is a file such as CLASS/NAME.mp4")
    return manifest
