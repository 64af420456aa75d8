"""Which videos each process loads, in which order: a pure function of seed, epoch and position.

The order of an epoch does not depend on the number of processes: global batch k holds the same
videos whether one process loads it or eight do, and micro-batches of gradient accumulation are
its consecutive parts. So runs on other machines, and runs that were resumed, see the same data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from mme_core.clips.draws import order_rng
from mme_core.errors import UsageError
from train.data.mix import Mix

SHARDS_AT_ONCE = 4  # shards whose videos are mixed with each other


def epoch_order(videos: int, seed: int, epoch: int, shards: np.ndarray | None = None) -> np.ndarray:
    """The shuffled videos of one epoch, int64 [videos].

    With `shards` (int [videos], the shard of each video) the shards are shuffled, and videos are
    mixed inside groups of SHARDS_AT_ONCE shards only: a slow disk then reads few files at a time.
    """
    rng = order_rng(seed, epoch)
    if shards is None:
        return rng.permutation(videos)
    names, member = np.unique(shards, return_inverse=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[rng.permutation(len(names))] = np.arange(len(names))
    group = rank[member] // SHARDS_AT_ONCE
    return np.lexsort((rng.random(videos), group))


class ClipSampler(Sampler):
    """Batches of (epoch, video) pairs for `torch.utils.data.DataLoader(batch_sampler=…)`.

    videos      length of the data set
    batch_size  videos in a micro-batch of one process
    rank, world this process and how many there are
    accumulate  micro-batches of a step; an epoch is a whole number of steps
    shards      int [videos], the shard of each video: shuffle by shards, a few at a time
    endless     training: go on with the next epoch, so that workers never run dry between
                epochs, and leave out what does not fill a step. False, for evaluation: a single
                pass, every video exactly once; the last batches are smaller, and a process may
                get one batch less than another
    limit       with endless=False: number of videos to take, the first ones of the order
    mix         how the videos of several stores are mixed, in place of a plain shuffle; the pairs
                are (pass, video) then

    Iterating starts at the position that `load_state_dict` set, else at the beginning. Raises
    UsageError when there are too few videos for one step.
    """

    def __init__(
        self,
        videos: int,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        seed: int = 0,
        shards: np.ndarray | None = None,
        endless: bool = True,
        limit: int | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.videos, self.batch_size = videos, batch_size
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.seed, self.shards, self.endless, self.mix = seed, shards, endless, mix
        self.taken = videos if limit is None else min(limit, videos)
        self.first = 0  # micro-batch to start with, counted from the start of epoch 0
        step = batch_size * world * accumulate
        if endless and videos < step:
            raise UsageError(
                f"{videos} videos do not fill one step: data.batch_size gives {batch_size} videos "
                f"× processes={world} × optim.accumulate={accumulate} = {step}; lower "
                "data.batch_size or use a store of more videos"
            )

    def __len__(self) -> int:
        """Micro-batches of this process in an epoch."""
        micro = self.batch_size * self.world
        if self.endless:
            return self.videos // (micro * self.accumulate) * self.accumulate
        left = self.taken % micro
        return self.taken // micro + (left > self.rank * self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The videos of an epoch, in the order all processes together load them."""
        return self._pairs(epoch)[1]

    def _pairs(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch (or pass) and the video of each place of an epoch."""
        if self.mix is not None:
            return self.mix.epoch(self.seed, epoch)
        return np.full(self.videos, epoch), epoch_order(self.videos, self.seed, epoch, self.shards)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if not self.endless:
            yield from self._epoch(0, 0)
            return
        epoch, batch = divmod(self.first, len(self))
        while True:
            yield from self._epoch(epoch, batch)
            epoch, batch = epoch + 1, 0

    def _epoch(self, epoch: int, first: int) -> Iterator[list[tuple[int, int]]]:
        numbers, videos = (column[: self.taken].tolist() for column in self._pairs(epoch))
        for batch in range(first, len(self)):
            start = (batch * self.world + self.rank) * self.batch_size
            part = slice(start, start + self.batch_size)
            yield list(zip(numbers[part], videos[part]))

    def state_dict(self, done: int) -> dict[str, Any]:
        """What continues after `done` micro-batches of this process since the start of epoch 0.

        The loop counts, not the sampler: workers draw batches ahead of what has been trained on.
        """
        epoch, batch = divmod(done, len(self))
        return {**self._identity(), "epoch": epoch, "drawn": batch * self.batch_size * self.world}

    def load_state_dict(self, state: dict[str, Any]) -> int:
        """Starts where the state was taken, also with another number of processes.

        Returns the number of micro-batches of this process that come before. Raises UsageError
        when the order would not be the same, naming what differs.
        """
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                mend = (
                    "; if a shard is missing, `mme repair STORE` makes it anew; if the store has "
                    "grown, start a new run with init="
                )
                raise UsageError(
                    f"the checkpoint's data order cannot be continued: {name} is {mine} here and "
                    f"was {state.get(name)} there{mend if name == 'videos' else ''}"
                )
        micro = self.batch_size * self.world
        if state["drawn"] % micro:
            raise UsageError(
                f"the checkpoint was taken after {state['drawn']} videos of its epoch, which is no "
                f"multiple of data.batch_size × processes = {micro} videos"
            )
        self.first = state["epoch"] * len(self) + state["drawn"] // micro
        return self.first

    def _identity(self) -> dict[str, Any]:
        """What fixes the order of the videos; the step's size, for it fixes an epoch's length."""
        return {
            "videos": self.videos,
            "seed": self.seed,
            "shuffle": True if self.shards is None else "shard",
            "videos a step": self.batch_size * self.world * self.accumulate,
            **({"mix": [self.mix.sizes, self.mix.turns.tolist()]} if self.mix else {}),
        }


def videos_per_batch(batch_size: int, crops: int) -> int:
    """Videos of a micro-batch of `batch_size` clips, `crops` of each video."""
    if crops < 1 or batch_size % crops:
        raise UsageError(
            f"data.crops={crops} must divide data.batch_size={batch_size}, which counts clips"
        )
    return batch_size // crops
