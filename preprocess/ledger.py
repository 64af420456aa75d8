"""ledger.jsonl: what became of each video, one row each.

The shards are the truth: each lists the videos it stores and those it quarantined. The ledger adds
the seconds and is what people read. Rows are added a shard at a time; where the ledger and the
shards disagree (a run was killed, a shard was removed), the shards are believed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from mme_core.chunks import shard_name
from mme_core.places import Place
from mme_core.remote import join
from mme_core.store_index import load_table, read_attributes, shard_numbers
from preprocess.worker import OK, QUARANTINED, Outcome

LEDGER = "ledger.jsonl"


class Ledger:
    """The rows of a store's ledger, one for each id.

    shards   numbers of the finished shards that the rows come from
    stale    does the file not say the same?
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._rows: dict[str, Outcome] = {}
        self.shards: set[int] = set()
        self.stale = False

    @classmethod
    def load(cls, place: Place, spec_hash: str, root: str) -> Ledger:
        """The ledger reconciled with the shards; changes nothing on the disk.

        root   the data set's folder, for the paths of rows that were lost
        """
        ledger = cls(place)
        lines = list(_read_rows(place))
        written = {row.id: row for row in lines}
        numbers = shard_numbers(place)
        stamps = place.stamps([f"{shard_name(number)}/zarr.json" for number in numbers])
        ledger.shards = {number for number, stamp in zip(numbers, stamps) if stamp}
        for row in load_table(place, spec_hash):
            stored = _stored(row, root)
            known = written.get(stored.id)
            ledger._put(known if known and known.shard == stored.shard else stored)
        # The rows at the end may be cut off, if the run was killed just then.
        last = next(reversed(written.values())).shard if written else None
        trusted = {row.shard for row in written.values()} - {last}
        for row in written.values():
            if row.status == QUARANTINED and row.shard in trusted & ledger.shards:
                ledger._put(row)
        for number in sorted(ledger.shards - trusted):
            for row in _quarantined(place, number, root):
                known = written.get(row.id)
                ledger._put(known if known and known.shard == number else row)
        ledger.stale = len(lines) != len(written) or written != ledger._rows
        return ledger

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._rows.values())

    def __contains__(self, video: object) -> bool:
        return video in self._rows

    def __getitem__(self, video: str) -> Outcome:
        return self._rows[video]

    def add(self, shard: int, outcomes: Iterable[Outcome]) -> None:
        """The rows of a shard that was finished just now."""
        rows = list(outcomes)
        for row in rows:
            self._put(row)
        self.shards.add(shard)
        self.stale = True
        if self._place.local is not None:
            with (self._place.local / LEDGER).open("ab") as file:
                file.write(_encode(rows))

    def save(self) -> None:
        """Writes the whole ledger anew, a row for each video."""
        self._place.write(LEDGER, _encode(self))
        self.stale = False

    def _put(self, row: Outcome) -> None:
        """A video that was tried again has several rows: stored wins, then the last."""
        known = self._rows.get(row.id)
        if known is None or known.status != OK:
            self._rows[row.id] = row


def _encode(rows: Iterable[Outcome]) -> bytes:
    return b"".join(json.dumps(dataclasses.asdict(row)).encode() + b"\n" for row in rows)


def _read_rows(place: Place) -> Iterator[Outcome]:
    try:
        lines = place.read(LEDGER).splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield Outcome(**json.loads(line))
        except (ValueError, TypeError):
            continue  # torn by a kill: the shard has it


def _quarantined(place: Place, number: int, root: str) -> Iterator[Outcome]:
    for row in (read_attributes(place, number) or {}).get("quarantined", ()):
        path = join(root, row["path"])
        yield Outcome(path, row["id"], QUARANTINED, row["reason"], shard=number)


def _stored(row: dict[str, Any], root: str) -> Outcome:
    duration = round(row["frames"] / row["fps"], 3) if row["fps"] else 0.0
    path = join(root, row["path"])
    return Outcome(path, row["id"], OK, "", None, row["shard"], row["frames"], duration)
