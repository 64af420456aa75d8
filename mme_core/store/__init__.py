"""The target store: what stage 1 writes and stage 2 reads (docs/store.md).

store = TargetStore("data/stores/mine")          # a path or an fsspec URL
window = store.read(video=0, start=0, tubelets=8)
"""

from mme_core.store.table import VideoTable
from mme_core.store.target_store import TargetStore
from mme_core.store.union import StoreUnion
from mme_core.store.window import CodedWindow, Window

__all__ = ["CodedWindow", "StoreUnion", "TargetStore", "VideoTable", "Window"]
