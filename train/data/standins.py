"""Clips that cannot be read: they are named, and during training another video stands in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset

from mme_core.clips.dataset import ClipDataset, Sample, collate
from mme_core.clips.draws import stand_in_rng
from mme_core.errors import StoreError, VideoError

Item = tuple[Sample | None, dict[int, str]]


class StandIns(Dataset):
    """The clips of `dataset`; another video stands in for one that cannot be read.

    An item, asked for as (epoch, video), is (sample, failed): the clip that this epoch draws from
    the video, or from the first one that can be read in an order that (seed, epoch, video) fixes;
    and {video: reason} of those that could not be read before it. So what stands in does not
    depend on the number of processes or workers, nor on a resume.

    budget  the sample is None once more videos than this have failed for it; 0: none stands in
    """

    def __init__(self, dataset: ClipDataset, budget: int) -> None:
        self.dataset, self.budget = dataset, budget

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        failed: dict[int, str] = {}
        for candidate in self._candidates(*key):
            try:
                return self.dataset[key[0], candidate], failed
            except (StoreError, VideoError) as error:
                failed[candidate] = str(error)
            if len(failed) > self.budget:
                break
        return None, failed

    def _candidates(self, epoch: int, video: int) -> Iterator[int]:
        yield video
        order = stand_in_rng(self.dataset.seed, epoch, video).permutation(len(self))
        yield from order[order != video].tolist()


def collate_full(items: list[Item]) -> dict[str, Any]:
    """A training batch and "failed", {video: reason}; "failed" alone where no clip can be read.

    An item without a sample gives its place to another of the batch, so that shapes stay as they
    are.
    """
    samples = [sample for sample, _ in items if sample is not None]
    if samples:
        samples += [samples[i % len(samples)] for i in range(len(items) - len(samples))]
    return _batch(samples, items)


def collate_readable(items: list[Item]) -> dict[str, Any]:
    """As `collate_full`, but items without a sample are left out: each clip is counted once."""
    return _batch([sample for sample, _ in items if sample is not None], items)


def _batch(samples: list[Sample], items: list[Item]) -> dict[str, Any]:
    failed = {video: reason for _, each in items for video, reason in each.items()}
    return {**(collate(samples) if samples else {}), "failed": failed}
