"""Shards of which a power cut has emptied a file, and what `mme flows` does with them.

What is left of such a shard may be all that is left of its videos. So a run removes it only where
it makes all of these again.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from mme_core.io.place import Place
from mme_core.io.remote import join
from mme_core.report.words import counted
from mme_core.spec import TargetSpec
from mme_core.store.layout import shard_name
from mme_core.store.leftovers import hollow_shards
from preprocess.jobs import OK, QUARANTINED, Outcome
from preprocess.ledger import read_rows
from preprocess.repair_plan import Entry, Planner

EMPTY = "has an empty file, as a power cut leaves it"


@dataclass
class Hollow:
    """What becomes of the hollow shards.

    remake  numbers of those whose videos the run makes again
    kept    rows of the videos of those that stay
    lines   what is said to the user
    """

    remake: list[int] = field(default_factory=list)
    kept: list[Outcome] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def find_hollow(
    place: Place, spec: TargetSpec, root: str, chosen: Mapping[str, object] | Set[str], whole: bool
) -> Hollow:
    """Finds the hollow shards. Changes nothing.

    root    folder of the videos
    chosen  ids of the videos that the run is for
    whole   whether these are all videos of the data set
    """
    found, numbers = Hollow(), hollow_shards(place)
    if not numbers:
        return found
    held = Planner(place, spec, 0, list(read_rows(place))).held(numbers, root)
    for number, entries in held.items():
        name = shard_name(number)
        missing = sum(entry.id not in chosen for entry in entries)
        if not missing and (entries or whole):
            found.remake.append(number)
            videos = f"its {counted(len(entries), 'video')}" if entries else "the videos it held"
            found.lines.append(f"{name} {EMPTY}: remove it and make {videos} again")
            continue
        found.kept += [_row(entry, number, root) for entry in entries]
        found.lines.append(f"{name} {EMPTY}, and stays as it is: {_why(place, entries, missing)}")
    return found


def _why(place: Place, entries: list[Entry], missing: int) -> str:
    if not entries:
        return (
            "nothing says which videos it held; the same command for the whole data set makes "
            "them again"
        )
    return (
        f"this run is not for {missing} of its {counted(len(entries), 'video')}; `mme repair "
        f"{place.url}` makes it anew once all are there"
    )


def _row(entry: Entry, number: int, root: str) -> Outcome:
    status = OK if entry.stored else QUARANTINED
    return Outcome(join(root, entry.path), entry.id, status, shard=number, label=entry.label)
