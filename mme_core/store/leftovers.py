"""What killed writers and power cuts leave in a store."""

from __future__ import annotations

import os
import re

from mme_core.io.place import Place, open_place
from mme_core.store.layout import INDEX, LEDGER, LOCK, STORE, shard_name
from mme_core.store.table import shard_numbers
from mme_core.store.writer import MARKER

# Names of files that a place had not renamed yet, because the writer was killed.
_FILES = "|".join(map(re.escape, (STORE, LEDGER, INDEX, LOCK)))
_ASIDE = re.compile(rf"\.({_FILES})(\.\w+)?\.[0-9a-f]{{32}}")


def leftovers(url: str | os.PathLike[str]) -> list[str]:
    """Returns what killed writers left behind, as names relative to the store.

    That is files that were never renamed, and shards that were never finished.
    """
    place = open_place(url)
    asides = [name for name in place.names() if _ASIDE.fullmatch(name)]
    return asides + [f"shards/{name}" for name in place.unfinished("shards", MARKER)]


def hollow_shards(place: Place) -> list[int]:
    """Returns the numbers of the finished shards of which a power cut has emptied a file."""
    return [number for number in shard_numbers(place) if _is_hollow(place, shard_name(number))]


def _is_hollow(place: Place, folder: str) -> bool:
    """Whether the group's metadata or a file of an array is empty."""
    return any(
        name == MARKER or name.partition("/")[2].startswith(("c.", MARKER))
        for name in place.empty_files(folder)
    )


def remove_leftovers(url: str | os.PathLike[str]) -> list[str]:
    """Removes `leftovers` and returns them. No other writer of this store may be at work."""
    place, names = open_place(url), leftovers(url)
    for name in names:
        place.remove(name)
    return names
