"""What `mme repair` has to do: which shards must be made anew, and from which videos.

A shard's own table says which videos it holds. Where it is damaged or missing, the ledger says so,
and the index where the ledger has no rows of that shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mme_core.errors import StoreError
from mme_core.io.place import Place
from mme_core.io.remote import relative
from mme_core.progress import follow
from mme_core.spec import TargetSpec
from mme_core.store.layout import shard_name
from mme_core.store.leftovers import leftovers
from mme_core.store.table import read_attributes, read_cache, shard_numbers
from preprocess.jobs import OK, Outcome
from preprocess.ledger import folder_of_videos
from preprocess.verify_shard import check_shard


@dataclass(frozen=True)
class Entry:
    """A video that a shard answers for; `stored`: it is in the shard, not quarantined."""

    id: str
    path: str  # relative to the data set's folder, where it lies below it
    label: int
    stored: bool


@dataclass
class Plan:
    """What is to be done.

    remake  {number of a shard: its videos}, in the order in which they are stored
    remove  {number of a shard: the other shards that store all of its videos}
    lost    a line for each shard that cannot be made again
    """

    remake: dict[int, list[Entry]] = field(default_factory=dict)
    remove: dict[int, set[int]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


class Planner:
    """Plans the repair of the store at `place`.

    classes  number of class names
    rows     rows of its ledger
    folder   where the ledger says that the videos are; "" where it does not say so
    """

    def __init__(
        self, place: Place, spec: TargetSpec, classes: int, rows: Sequence[Outcome]
    ) -> None:
        self.place, self.spec, self.classes, self.rows = place, spec, classes, rows
        self.folder = folder_of_videos(rows, self._stored_paths())

    def plan(self, root: str) -> Plan:
        """Reads the whole store and finds the shards that must be made again.

        root  folder of the videos now
        """
        left = set(leftovers(self.place.url))
        present = [n for n in shard_numbers(self.place) if shard_name(n) not in left]
        known = self._remembered(root)
        damaged = {*(known.keys() - set(present)), *self._damaged(present)}
        entries = self._held(sorted({*present, *damaged}), known)
        owner = _owners(entries, damaged)
        plan = Plan()
        for number, listed in entries.items():
            stored = {one.id for one in listed if one.stored}
            if number not in damaged and all(owner[name] == number for name in stored):
                continue
            kept = [one for one in listed if owner.setdefault(one.id, number) == number]
            if not listed:
                plan.lost.append(
                    f"{shard_name(number)}: neither its table nor the ledger says which videos it "
                    "held; remove it and run the same `mme flows` command again"
                )
            elif kept:
                plan.remake[number] = kept
            else:
                plan.remove[number] = {owner[one.id] for one in listed}
        return plan

    def held(self, numbers: Sequence[int], root: str) -> dict[int, list[Entry]]:
        """Returns the videos of each shard, as far as anything says which they are."""
        return self._held(numbers, self._remembered(root))

    def _held(
        self, numbers: Sequence[int], known: Mapping[int, list[Entry]]
    ) -> dict[int, list[Entry]]:
        return {number: self._entries(number) or known.get(number, []) for number in numbers}

    def _stored_paths(self) -> Iterator[tuple[str, str]]:
        """Yields (id, path) of the videos that the index and the shards name."""
        _, cached = read_cache(self.place)
        yield from zip(cached["id"], cached["path"])
        for number in shard_numbers(self.place):
            yield from ((entry.id, entry.path) for entry in self._entries(number))

    def _damaged(self, present: Sequence[int]) -> Iterator[int]:
        for number in follow(present, len(present), "shards checked"):
            if check_shard(self.place.url, number, self.spec, self.classes, True).problems:
                yield number

    def _entries(self, number: int) -> list[Entry]:
        """Returns the videos in a shard's own table; none where it is damaged or missing."""
        try:
            table = read_attributes(self.place, number)
            if table is None or table["spec_hash"] != self.spec.hash:
                return []
            stored = [Entry(r["id"], r["path"], r["label"], True) for r in table["videos"]]
            return stored + [
                Entry(r["id"], r["path"], r["label"], False) for r in table["quarantined"]
            ]
        except (StoreError, KeyError, TypeError):
            return []

    def _remembered(self, root: str) -> dict[int, list[Entry]]:
        """Returns the videos of each shard from the ledger, or from the index without such rows."""
        known: dict[int, list[Entry]] = {}
        for row in self.rows:
            within = relative(row.path, self.folder)  # it may have moved to `root` since
            path = within if within != row.path else relative(row.path, root)
            entry = Entry(row.id, path, row.label, row.status == OK)
            known.setdefault(row.shard, []).append(entry)
        _, cached = read_cache(self.place)
        by_index: dict[int, list[Entry]] = {}
        for indexed in cached:
            entry = Entry(indexed["id"], indexed["path"], indexed["label"], True)
            by_index.setdefault(indexed["shard"], []).append(entry)
        return by_index | known


def _owners(entries: Mapping[int, Iterable[Entry]], damaged: set[int]) -> dict[str, int]:
    """Returns the shard in which each stored video stays: the first undamaged one that stores it.

    A quarantined video has no owner. Another run may have stored it since.
    """
    owner: dict[str, int] = {}
    for number in sorted(entries, key=lambda number: (number in damaged, number)):
        for one in entries[number]:
            if one.stored:
                owner.setdefault(one.id, number)
    return owner
