"""Batches: which videos, in which order, by which processes."""
