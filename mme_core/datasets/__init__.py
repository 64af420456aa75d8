"""Lists of a data set's videos: their names, paths and labels.

`load_manifest` reads any data set. Each is a row of `DATASETS`; its module has a function
`load(root, split, **options) -> Manifest`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from mme_core.datasets.manifest import Manifest, VideoItem, missing_root
from mme_core.errors import UsageError

__all__ = ["DATASETS", "Manifest", "VideoItem", "load_manifest"]


@dataclass(frozen=True)
class _Source:
    """How to load a data set.

    module   the module that defines `load`
    stride   the usual spec.stride
    options  keyword arguments of `load`
    """

    module: str
    stride: int = 4
    options: dict[str, Any] = field(default_factory=dict)


DATASETS = {
    "folder": _Source("mme_core.datasets.folder"),
    "csv": _Source("mme_core.datasets.csvlist"),
    "demo": _Source("mme_core.datasets.demo"),
    **{
        name: _Source("mme_core.datasets.kinetics", options={"dataset": name})
        for name in ("k400", "k600", "k700")
    },
    "ssv2": _Source("mme_core.datasets.ssv2", stride=3),
    "ucf101": _Source("mme_core.datasets.ucf101"),
    "hmdb51": _Source("mme_core.datasets.hmdb51"),
    "hdf5": _Source("mme_core.datasets.hdf5"),
}


def load_manifest(dataset: str, root: str, split: str | None = None, **options: Any) -> Manifest:
    """Returns the videos of a data set, sorted by id.

    dataset   a name of `DATASETS`
    root      its folder; `demo` creates it if it does not exist
    split     default: the training split if the data set has official splits, else all videos
    options   further arguments of the data set's `load`, such as `videos` for `demo`

    Raises UsageError for an unknown data set, a missing folder, a bad list, or no video at all.
    """
    if dataset not in DATASETS:
        raise UsageError(f"'{dataset}' is not a data set; there are {', '.join(DATASETS)}")
    if not str(root):
        raise UsageError(missing_root(dataset))
    source = DATASETS[dataset]
    load = importlib.import_module(source.module).load
    manifest = load(str(root), split, **source.options, **options)
    if not manifest.items:
        where = f"{root}" + (f", split '{split}'" if split else "")
        raise UsageError(f"no video in {where}; a video is a file such as CLASS/NAME.mp4")
    return manifest
