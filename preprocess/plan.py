"""Which videos go into which shard.

The plan is a function of what is wanted and what is there, and needs no file of its own: the videos
that no finished shard answers for, in the manifest's order, `videos_per_shard` at a time, take the
shard numbers that are free, lowest first. So an interrupted run, continued, ends with the shards
that an uninterrupted one has; and when the data set has grown, the new videos go into new shards
and nothing that exists is touched.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mme_core.datasets import VideoItem
from mme_core.errors import UsageError

MOST_PER_SHARD = 64


@dataclass(frozen=True)
class Shard:
    """The videos that shard `number` answers for: each is stored in it or quarantined by it."""

    number: int
    items: tuple[VideoItem, ...]


def default_videos_per_shard(videos: int) -> int:
    """From the number of videos alone: the same for any number of workers.

    A small data set has as many shards as videos in each: a shard of few videos wastes files, and
    few shards leave workers without work.
    """
    return min(math.isqrt(max(videos - 1, 0)) + 1, MOST_PER_SHARD)


def choose(
    items: Sequence[VideoItem], limit: int | None, fraction: float | None, seed: int
) -> Sequence[VideoItem]:
    """The first `limit` items, or a random `fraction` (at least one item), in their order.

    With one seed a larger fraction holds every item of a smaller one.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} must be at least 1")
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"--fraction {fraction} must be above 0 and at most 1")
    if limit is not None:
        return items[:limit]
    if fraction is None:
        return items
    numbers = list(range(len(items)))
    random.Random(seed).shuffle(numbers)
    kept = sorted(numbers[: max(round(fraction * len(items)), 1)])
    return [items[number] for number in kept]


def plan_shards(
    items: Iterable[VideoItem], done: Container[str], taken: Container[int], videos_per_shard: int
) -> Iterator[Shard]:
    """Shards for the items whose id is not in `done`, with numbers that are not in `taken`."""
    missing = (item for item in items if item.id not in done)
    free = (number for number in itertools.count() if number not in taken)
    while group := tuple(itertools.islice(missing, videos_per_shard)):
        yield Shard(next(free), group)
