"""Clips for training: a window of a store with its crop, flip, zoom, mask and targets."""
