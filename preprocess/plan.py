"""Plans which videos go into which shard.

The plan needs no file of its own. It takes the videos that are in no finished shard, in the order
of the manifest, in groups of `videos_per_shard`. Each group gets the lowest free shard number. So a
run that was stopped and resumed has the same shards as one that was not. If the data set has grown,
new videos go into new shards, and no existing shard changes.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mme_core.datasets import VideoItem
from mme_core.errors import StoreError, UsageError, listed
from mme_core.io.place import Place
from mme_core.io.remote import is_url
from mme_core.store.layout import shard_name
from mme_core.store.table import unmarked_shards

MOST_PER_SHARD = 64


@dataclass(frozen=True)
class Shard:
    """The videos of shard `number`. The shard stores or quarantines each of them."""

    number: int
    items: tuple[VideoItem, ...]


def default_videos_per_shard(videos: int) -> int:
    """The square root of the number of videos, rounded up, at most MOST_PER_SHARD.

    Small shards make many files, and few shards leave workers without work. The number of workers
    plays no part, so that it does not change the store.
    """
    return min(math.isqrt(max(videos - 1, 0)) + 1, MOST_PER_SHARD)


def choose(
    items: Sequence[VideoItem], limit: int | None, fraction: float | None, seed: int
) -> Sequence[VideoItem]:
    """The first `limit` items, or a random `fraction` of them (at least one), in their order.

    With the same seed, a larger fraction contains all items of a smaller one.
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


def check_free(place: Place, mend: str) -> None:
    """Raises StoreError for a shard's folder without zarr.json, as an incomplete copy leaves it.

    mend  what the user can do, for the message

    A new shard cannot be renamed to a folder that is there. Behind a URL nothing is renamed.
    """
    numbers = [] if is_url(place.url) else unmarked_shards(place)
    if numbers:
        names = listed([shard_name(number) for number in numbers])
        raise StoreError(f"{place.at(names)}: there is no zarr.json in it: {mend}")


def plan_shards(
    items: Iterable[VideoItem], done: Container[str], taken: Container[int], videos_per_shard: int
) -> Iterator[Shard]:
    """Shards of the items whose ids are not in `done`, with numbers that are not in `taken`."""
    missing = (item for item in items if item.id not in done)
    free = (number for number in itertools.count() if number not in taken)
    while group := tuple(itertools.islice(missing, videos_per_shard)):
        yield Shard(next(free), group)
