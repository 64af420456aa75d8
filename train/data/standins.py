"""Clips that cannot be read: they are named, and during training another video stands in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch.utils.data import Dataset

from mme_core.clips.coded import Arrays, CodedForm
from mme_core.clips.draws import stand_in_rng
from mme_core.errors import StoreError, VideoError
from train.data.handover import Blocks, Handed


class Clips(Protocol):
    """A ClipDataset, or what else writes clips of videos into batches."""

    seed: int
    crops: int

    @property
    def form(self) -> CodedForm: ...

    def __len__(self) -> int: ...

    def fetch_into(self, arrays: Arrays, first: int, key: tuple[int, int]) -> None: ...


def candidates(seed: int, epoch: int, video: int, videos: int) -> Iterator[int]:
    """The video, then each of the others, in the order in which they may stand in for it."""
    yield video
    order = stand_in_rng(seed, epoch, video).permutation(videos)
    yield from order[order != video].tolist()


class StandIns(Dataset):
    """Coded batches of `dataset`; another video stands in for one that cannot be read.

    A batch, asked for as a list of (epoch, video), has for each of them the clips that this epoch
    draws from the video, or from the first one that can be read in an order that (seed, epoch,
    video) fixes; and "failed", {video: reason} of those that could not be read before it. So what
    stands in does not depend on the number of processes or workers, nor on a resume.

    budget  number of candidates for a clip that may fail. After one more failure the clip is left
            out. 0: no other video stands in
    full    a video without a clip gives its place to another of the batch, so that shapes stay as
            they are. False leaves it out: each clip is counted once
    blocks  the memory of the batches
    A batch without any clip has "failed" alone.
    """

    def __init__(
        self, dataset: Clips, budget: int, *, full: bool, blocks: Blocks | None = None
    ) -> None:
        self.dataset, self.budget, self.full = dataset, budget, full
        self.blocks = blocks or Blocks(0, 0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Handed:
        form, crops = self.dataset.form, self.dataset.crops
        clips = len(keys) * crops
        memory, block = self.blocks.take(form.size(clips))
        arrays = {name: value.numpy() for name, value in form.carve(memory, clips).items()}
        good = 0
        failed: dict[int, str] = {}
        for key in keys:
            there, reasons = self._fetch(arrays, good * crops, key)
            good, failed = good + there, failed | reasons
        if good and self.full:
            _repeat(arrays, good * crops)
        kept = clips if good and self.full else good * crops
        return Handed(memory, form, clips, kept, {"failed": failed}, block)

    def _fetch(
        self, arrays: Arrays, first: int, key: tuple[int, int]
    ) -> tuple[bool, dict[int, str]]:
        """Writes the clips of one video; whether there are any, and {video: reason}."""
        failed: dict[int, str] = {}
        for candidate in candidates(self.dataset.seed, *key, len(self)):
            try:
                self.dataset.fetch_into(arrays, first, (key[0], candidate))
                return True, failed
            except (StoreError, VideoError) as error:
                failed[candidate] = str(error)
            if len(failed) > self.budget:
                break
        return False, failed


def _repeat(arrays: Arrays, good: int) -> None:
    """Fills a batch, of which the first `good` clips are there, with these clips."""
    for array in arrays.values():
        for clip in range(good, len(array)):
            array[clip] = array[(clip - good) % good]
