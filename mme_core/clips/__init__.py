"""Clips for training: a window of a store with its crop, flip, zoom, mask and targets."""

from mme_core.clips.dataset import ClipDataset, collate

__all__ = ["ClipDataset", "collate"]
