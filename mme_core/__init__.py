"""Masked Motion Encoding, the library: its public names, each imported only when it is used.

from mme_core import TargetStore, ClipDataset, extract_video, load_encoder, read_video
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mme_core.clips.dataset import ClipDataset
    from mme_core.encoder import load_encoder
    from mme_core.extract.video_targets import extract_video
    from mme_core.io.whole_video import read_video
    from mme_core.model import build_classifier, build_pretraining_model
    from mme_core.spec import TargetSpec
    from mme_core.store.target_store import TargetStore

# name: module that defines it. Lazy imports let stage 1 run without torch.
_PUBLIC = {
    "ClipDataset": "mme_core.clips.dataset",
    "TargetSpec": "mme_core.spec",
    "TargetStore": "mme_core.store.target_store",
    "build_classifier": "mme_core.model",
    "build_pretraining_model": "mme_core.model",
    "extract_video": "mme_core.extract.video_targets",
    "load_encoder": "mme_core.encoder",
    "read_video": "mme_core.io.whole_video",
}
__all__ = [
    "ClipDataset",
    "TargetSpec",
    "TargetStore",
    "build_classifier",
    "build_pretraining_model",
    "extract_video",
    "load_encoder",
    "read_video",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mme_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
