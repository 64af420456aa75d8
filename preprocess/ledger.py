"""ledger.jsonl: what became of each video, one row for each.

People read the ledger, and it has the seconds that each video took. The rest is in the shards, too:
each lists the videos that it stores and those that it quarantined. Where the ledger and the shards
disagree, because a run was killed, the shards are right. The rows of a shard that is not there stay
until other shards have its videos: they are all that says what is missing.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import google_crc32c
import numpy as np

from mme_core.extract.stages import STAGES
from mme_core.io.place import Place
from mme_core.io.remote import join
from mme_core.store.layout import LEDGER, shard_name
from mme_core.store.table import load_table, read_attributes, shard_numbers
from preprocess.jobs import OK, QUARANTINED, Outcome

_CHECKSUM = re.compile(rb', "crc32c": "([0-9a-f]{8})"}\s*$')
_FIELDS = [each.name for each in dataclasses.fields(Outcome)]


class _Rows:
    """Outcomes by id. Those of stored videos are packed, which halves their memory."""

    # seconds (NaN: None), shard, frames, duration, label, milliseconds of each stage (-1: unknown)
    _numbers = struct.Struct(f"<diqdi{len(STAGES)}i")

    def __init__(self, root: str) -> None:
        self._root = root
        self._packed: dict[str, bytes | Outcome] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, video: object) -> bool:
        return video in self._packed

    def __iter__(self) -> Iterator[Outcome]:
        return map(self.__getitem__, self._packed)

    def __getitem__(self, video: str) -> Outcome:
        packed = self._packed[video]
        if isinstance(packed, Outcome):
            return packed
        seconds, shard, frames, duration, label, *times = self._numbers.unpack(packed)
        known = None if math.isnan(seconds) else seconds
        path = join(self._root, video)
        stages = {name: time / 1000 for name, time in zip(STAGES, times) if time >= 0}
        return Outcome(path, video, OK, "", known, shard, frames, duration, label, stages)

    def get(self, video: str) -> Outcome | None:
        return self[video] if video in self._packed else None

    def consists_of(self, *parts: _Rows) -> bool:
        """Whether these are the rows of the parts, which share no video."""
        return len(self) == sum(map(len, parts)) and all(
            self._packed.get(video) == packed
            for part in parts
            for video, packed in part._packed.items()
        )

    def fuller(self, row: Outcome) -> Outcome:
        """Returns the known row of the video, which also has its times, or `row` if they differ.

        They differ if the video is in another shard or has another status. The label is that of
        `row`, and a path that was written without the folder gets it.
        """
        known = self.get(row.id)
        if known is None or (known.shard, known.status) != (row.shard, row.status):
            return row
        path = join(self._root, known.path)
        if (path, row.label) == (known.path, known.label):
            return known
        return dataclasses.replace(known, path=path, label=row.label)

    def put(self, row: Outcome) -> None:
        packed: bytes | Outcome = row
        usual = row.path == join(self._root, row.id) and row.stages.keys() in ({*STAGES}, set())
        if row.status == OK and not row.reason and usual:
            seconds = math.nan if row.seconds is None else row.seconds
            numbers = (seconds, row.shard, row.frames, row.duration, row.label)
            stages = row.stages or dict.fromkeys(STAGES, -0.001)
            packed = self._numbers.pack(*numbers, *(round(1000 * stages[n]) for n in STAGES))
        self._packed[row.id] = packed

    def drop(self, video: str) -> None:
        self._packed.pop(video, None)


class Ledger:
    """The rows of a store's ledger, one for each id.

    root     the data set's folder, for the paths of rows that were lost
    shards   numbers of the finished shards that the rows come from
    lost     rows of videos that no shard has, because theirs is missing; the file keeps them
    stale    whether the file says something else
    behind   whether the file lacks rows that were added
    """

    def __init__(self, place: Place, root: str) -> None:
        self._place, self._root = place, root
        self._rows, self.lost = _Rows(root), _Rows(root)
        self.shards: set[int] = set()
        self.stale = self.behind = False
        self._torn = False  # whether the file ends in a part of a row

    @classmethod
    def load(
        cls, place: Place, spec_hash: str, root: str, remembered: Iterable[Outcome] = ()
    ) -> Ledger:
        """Reads the ledger and corrects it by the shards. Of the disk it changes the index alone.

        remembered  rows of shards whose table a power cut has emptied, for what the ledger lacks
        """
        ledger, table = cls(place, root), load_table(place, spec_hash)
        written, lines, last, damaged = _Rows(root), 0, None, False
        for lines, row in enumerate(_read_lines(place), 1):  # noqa: B007
            damaged |= ledger._torn
            ledger._torn = row is None
            if row is not None:
                written.put(row)
                last = row.shard
        numbers = shard_numbers(place)
        stamps = place.stamps([f"{shard_name(number)}/zarr.json" for number in numbers])
        ledger.shards = {number for number, stamp in zip(numbers, stamps) if stamp}
        for entry in table:
            ledger._put(written.fuller(_stored(entry, root)))
        # The rows at the end may be cut off, if the run was killed just then. A damaged line before
        # others may have been a row of any shard.
        trusted = set() if damaged else {row.shard for row in written} - {last}
        noted: dict[int, list[Outcome]] = {number: [] for number in trusted}
        for row in written:
            if row.status == QUARANTINED and row.shard in trusted:
                noted[row.shard].append(row)
        for number in sorted(ledger.shards):  # the last try of a video counts
            for row in noted[number] if number in trusted else _quarantined(place, number, root):
                ledger._put(written.fuller(row))
        blank = _without_table(place, ledger.shards - set(np.unique(table["shard"]).tolist()))
        for row in itertools.chain(written, remembered):
            ledger._put_unconfirmed(written.fuller(row), blank)
        ledger.stale = lines != len(written) or not written.consists_of(ledger._rows, ledger.lost)
        return ledger

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._rows)

    def __contains__(self, video: object) -> bool:
        return video in self._rows

    def __getitem__(self, video: str) -> Outcome:
        return self._rows[video]

    def add(self, shard: int, outcomes: Iterable[Outcome]) -> None:
        """Adds the rows of a shard that was finished just now."""
        rows = list(outcomes)
        for row in rows:
            self._put(row)
            self.lost.drop(row.id)
        self.shards.add(shard)
        self.stale = True
        if self._torn:
            self.save()  # appended rows would continue the torn one
        else:
            self.behind |= not self._place.append(LEDGER, _encode(rows))  # as on an object store

    def save(self) -> None:
        """Writes the whole ledger again, one row for each video."""
        self._place.write(LEDGER, _encode(itertools.chain(self, self.lost)))
        self.stale = self.behind = self._torn = False

    def lose(self, shard: int) -> None:
        """Counts the rows of a shard, which is to be made anew, among those that are lost."""
        for row in [row for row in self if row.shard == shard]:
            self._rows.drop(row.id)
            self.lost.put(row)
        self.shards.discard(shard)

    def _put_unconfirmed(self, row: Outcome, blank: set[int]) -> None:
        """Keeps a row that no shard's table confirms, if its shard or that table is missing.

        blank  numbers of the shards whose table a power cut has emptied
        """
        if row.id in self._rows:
            return
        if row.shard in blank:
            self._rows.put(row)
        elif row.shard not in self.shards:
            self.lost.put(row)

    def _put(self, row: Outcome) -> None:
        """Keeps one row of a video that was tried several times: that it is stored, or the last."""
        known = self._rows.get(row.id)
        if known is None or known.status != OK:
            self._rows.put(row)


def _encode(rows: Iterable[Outcome]) -> Iterator[bytes]:
    """Yields each row as a line of JSON that ends with a checksum of the rest."""
    for row in rows:
        text = json.dumps({name: getattr(row, name) for name in _FIELDS}).encode()
        yield text[:-1] + b', "crc32c": "%08x"}\n' % google_crc32c.value(text)


def read_row(line: bytes) -> Outcome:
    """Returns the row of a line. Rows of older stores have no checksum.

    Raises ValueError for a damaged line.
    """
    if found := _CHECKSUM.search(line):
        line = line[: found.start()] + b"}"
        if google_crc32c.value(line) != int(found[1], 16):
            raise ValueError("the checksum does not match")
    try:
        row = Outcome(**json.loads(line))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if row.status not in (OK, QUARANTINED):
        raise ValueError(f"unknown status {row.status!r}")
    return row


def read_rows(place: Place) -> Iterator[Outcome]:
    """Yields the rows of the ledger without damaged lines. The shards know what these held."""
    return (row for row in _read_lines(place) if row is not None)


def _read_lines(place: Place) -> Iterator[Outcome | None]:
    """The row of each line of the ledger; None for a damaged line."""
    try:
        lines = io.BytesIO(place.read(LEDGER))
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield read_row(line)
        except ValueError:
            yield None


def folder_of_videos(rows: Iterable[Outcome], stored: Iterable[tuple[str, str]]) -> str:
    """Returns the data set's folder; "" where it is unknown.

    rows    rows of the ledger, whose paths begin with the folder
    stored  (id, path) of videos in the shards, whose paths are relative to the folder

    Where no shard is left, the folder comes from a path that ends in the video's id.
    """
    paths = {row.id: row.path for row in rows}
    for name, path in [*stored, *zip(paths, paths)]:
        full = paths.get(name, "")
        if full.endswith(f"/{path}"):
            return full.removesuffix(f"/{path}")
    return ""


def _without_table(place: Place, numbers: set[int]) -> set[int]:
    """Returns those of the shards whose zarr.json a power cut has emptied."""
    return {number for number in numbers if read_attributes(place, number) is None}


def _quarantined(place: Place, number: int, root: str) -> Iterator[Outcome]:
    for row in (read_attributes(place, number) or {}).get("quarantined", ()):
        path = join(root, row["path"])
        label = row.get("label", -1)
        yield Outcome(path, row["id"], QUARANTINED, row["reason"], shard=number, label=label)


def _stored(row: dict[str, Any], root: str) -> Outcome:
    duration = round(row["frames"] / row["fps"], 3) if row["fps"] else 0.0
    path = join(root, row["path"])
    return Outcome(
        path, row["id"], OK, "", None, row["shard"], row["frames"], duration, row["label"]
    )
