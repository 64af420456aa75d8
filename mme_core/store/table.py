"""The table of a store's videos, and its cache index.npz.

The table itself is in the attributes of the shards. Opening thousands of them takes seconds, so all
of it is kept in one file, which is rebuilt where a shard is new, gone, or written anew.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mme_core.errors import StoreError, UsageError
from mme_core.io.place import Place
from mme_core.store.layout import FORMAT, INDEX, LEDGER, SEALED_SINCE, shard_name
from mme_core.store.seal import unseal

# name: kind of its elements; "text" is str, "list" is a list of str
COLUMNS = {
    "id": "text",
    "path": "text",
    "label": "int64",
    "first": "int64",
    "count": "int64",
    "hp": "int64",
    "wp": "int64",
    "fps": "float64",
    "height": "int64",
    "width": "int64",
    "frames": "int64",
    "first_frame": "int64",
    "warnings": "list",
    "shard": "int64",
}
OMITTED = {"first_frame": 0}  # the value of a column that the row of a shard does not have

_DIGEST_SIZE = hashlib.sha256().digest_size  # bytes at the end of index.npz
_NONE: list[str] = []  # shared by all videos without warnings, to save memory


class VideoTable:
    """A row for each video: `table["id"]` is a column (array), `table[3]` a row (dict).

    id             unique name
    path           path of the file, relative to the data set's folder
    label          number of the class; −1 where there is none
    shard          number of the video's shard
    first          row of its first tubelet in the shard's arrays
    count          number of its tubelets
    hp, wp         size of its canvas in patches
    height, width  size of its frames in pixels, rotation applied
    frames         number of frames that are used
    first_frame    number in the file of the first of them; not 0 where the frame size changes
    fps            frames per second, measured from the timestamps where they increase, otherwise
                   from the header; 0 if unknown
    warnings       list of texts
    """

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = dict(columns)
        self._rows_by_id: dict[str, int] | None = None

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> VideoTable:
        rows = list(rows)
        return cls({name: _column([row[name] for row in rows], COLUMNS[name]) for name in COLUMNS})

    @classmethod
    def join(cls, tables: list[VideoTable]) -> VideoTable:
        """All rows of the tables, in their order."""
        if not tables:
            return cls.from_rows([])
        return cls({name: np.concatenate([t[name] for t in tables]) for name in COLUMNS})

    def part(self, start: int, stop: int) -> VideoTable:
        """Rows start … stop − 1."""
        return VideoTable({name: column[start:stop] for name, column in self._columns.items()})

    def __len__(self) -> int:
        return len(self._columns["id"])

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            if key not in self._columns:
                raise StoreError(f"no column '{key}'; the columns are {', '.join(COLUMNS)}")
            return self._columns[key]
        return {name: _plain(column[key]) for name, column in self._columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def find(self, video_id: str) -> int:
        """The row of a video. Raises UsageError, which offers the nearest, for an unknown id."""
        if self._rows_by_id is None:
            self._rows_by_id = {text: number for number, text in enumerate(self["id"])}
        if video_id not in self._rows_by_id:
            ids = list(self._rows_by_id)
            near = [text for text in ids if video_id in text][:3]
            near = near or difflib.get_close_matches(video_id, ids)
            offer = f"near it: {', '.join(near)}" if near else f"the first: {', '.join(ids[:3])}"
            raise UsageError(f"no video '{video_id}' in the store; {offer}")
        return self._rows_by_id[video_id]

    def __getstate__(self) -> dict[str, Any]:
        return {"_columns": self._columns, "_rows_by_id": None}


def _column(values: list[Any], kind: str) -> np.ndarray:
    if kind == "list":
        values = [value or _NONE for value in values]
    if kind in ("text", "list"):
        return np.fromiter(values, object, len(values))
    return np.array(values, kind)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def shard_numbers(place: Place) -> list[int]:
    """Numbers of all folders named like a shard; on an object store some may be unfinished."""
    names = [name for name in place.names("shards") if re.fullmatch(r"\d{5,}\.zarr", name)]
    return sorted(int(name.removesuffix(".zarr")) for name in names)


def finished_shards(place: Place) -> dict[int, str]:
    """{number: stamp of its metadata} of the finished shards, ascending."""
    numbers = shard_numbers(place)
    stamps = place.stamps([f"{shard_name(number)}/zarr.json" for number in numbers])
    return {number: stamp for number, stamp in zip(numbers, stamps) if stamp}


def lost_shards(place: Place) -> list[int]:
    """Returns the numbers of shards that the ledger names and that are not there, or unfinished."""
    try:
        ledger = place.read(LEDGER)
    except FileNotFoundError:
        return []
    named = sorted({int(number) for number in re.findall(rb'"shard": (\d+)', ledger)})
    stamps = place.stamps([f"{shard_name(number)}/zarr.json" for number in named])
    return [number for number, stamp in zip(named, stamps) if not stamp]


def unmarked_shards(place: Place) -> list[int]:
    """Returns the numbers of shard folders without zarr.json, which every finished shard has."""
    return sorted(set(shard_numbers(place)) - finished_shards(place).keys())


def read_attributes(place: Place, shard: int) -> dict[str, Any] | None:
    """Returns the attributes of a shard's group, or None where the shard is not finished.

    Raises StoreError where the file is damaged or of a newer format.
    """
    name = f"{shard_name(shard)}/zarr.json"
    try:
        data = place.read(name)
        if not data.strip(b"\0"):
            return None  # a power cut left the file's name, and nothing in it
        document, sealed = unseal(data)
        attributes = document["attributes"]
        version = int(attributes["format"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{place.at(name)} is damaged ({error}); `mme repair` makes the shard anew"
        ) from error
    if version > FORMAT:
        raise StoreError(
            f"{place.at(name)} has format {version}, newer than this program's {FORMAT}: update mme"
        )
    if version >= SEALED_SINCE and not sealed:
        raise StoreError(
            f"{place.at(name)} is damaged (it has no digest); `mme repair` makes the shard anew"
        )
    return attributes


def read_quarantined(place: Place, stored: Iterable[str]) -> dict[str, str]:
    """Returns {id: reason} of the videos that stage 1 left out, in the order of the shards.

    stored  ids of the stored videos, which are not returned: a later run may have stored one

    Of a video that was left out several times, the last reason counts. Raises StoreError for a
    damaged shard.
    """
    with ThreadPoolExecutor(place.parallel_reads) as pool:
        shards = pool.map(lambda number: read_attributes(place, number), shard_numbers(place))
        rows = [row for shard in shards if shard for row in shard.get("quarantined", ())]
    reasons = {row["id"]: row["reason"] for row in rows}
    for name in reasons.keys() & set(stored):
        del reasons[name]
    return reasons


def load_table(place: Place, spec_hash: str) -> VideoTable:
    """The videos of all finished shards, by shard and row; from the cache where it holds.

    Raises StoreError for a shard that is damaged or was made with another specification.
    """
    # A cache of another specification is stale too.
    finished = {n: f"{spec_hash} {stamp}" for n, stamp in finished_shards(place).items()}
    cached_stamps, cached = read_cache(place)
    if cached_stamps == finished:
        return cached
    lowest = np.array(list(finished), np.int64)
    bounds = np.searchsorted(cached["shard"], np.stack([lowest, lowest + 1]))
    known = {
        number: cached.part(low, high)
        for number, low, high in zip(finished, *bounds)
        if cached_stamps.get(number) == finished[number]
    }
    with ThreadPoolExecutor(place.parallel_reads) as pool:
        new = [number for number in finished if number not in known]
        known |= zip(new, pool.map(lambda number: _read_shard(place, number, spec_hash), new))
    table = VideoTable.join([known[number] for number in finished])
    del known, cached  # as large as the table
    _write_cache(place, finished, table)
    return table


def _read_shard(place: Place, number: int, spec_hash: str) -> VideoTable:
    attributes = read_attributes(place, number)
    if attributes is None:
        return VideoTable.from_rows([])
    where = place.at(shard_name(number))
    try:
        if attributes["spec_hash"] != spec_hash:
            raise StoreError(
                f"{where} was made with another specification ({attributes['spec_hash']}) than "
                f"store.json says ({spec_hash}); `mme repair` makes it anew"
            )
        rows = [{**OMITTED, **row, "shard": number} for row in attributes["videos"]]
        return _lean(VideoTable.from_rows(rows))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"{where}/zarr.json is damaged ({error!r}); `mme repair` makes the shard anew"
        ) from error


def read_cache(place: Place) -> tuple[dict[int, str], VideoTable]:
    """Returns the stamps and the table in index.npz; empty ones where it cannot be used.

    Its digest is checked first, because reading a damaged archive may need any amount of memory.
    """
    try:
        data = place.read(INDEX)
    except (OSError, StoreError):
        return {}, VideoTable.from_rows([])
    body = memoryview(data)[:-_DIGEST_SIZE]
    if hashlib.sha256(body).digest() != data[-_DIGEST_SIZE:]:
        return {}, VideoTable.from_rows([])
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if not COLUMNS.keys() <= set(file.files):
            return {}, VideoTable.from_rows([])  # an older program wrote it
        stamps = {int(number): stamp for number, stamp in json.loads(file["stamps"].tobytes())}
        return stamps, _lean(VideoTable({name: _unpack(file, name) for name in COLUMNS}))


def _lean(table: VideoTable) -> VideoTable:
    """Lets a path that equals the video's id be the same object, which saves 80 bytes a row."""
    ids, paths = table["id"], table["path"]
    columns = {name: table[name] for name in COLUMNS}
    return VideoTable(columns | {"path": np.where(ids == paths, ids, paths)})


def _write_cache(place: Place, stamps: dict[int, str], table: VideoTable) -> None:
    packed = {"stamps": _bytes(json.dumps(list(stamps.items())))}
    for name, kind in COLUMNS.items():
        column = table[name]
        packed[name] = column if kind in ("int64", "float64") else _bytes(json.dumps(list(column)))
    buffer = io.BytesIO()
    np.savez(buffer, **packed)  # type: ignore[arg-type]  # its stub has only `allow_pickle`
    data = buffer.getbuffer()
    try:
        # zip readers look for the archive's end, and pass over what follows it
        place.write(INDEX, [data, hashlib.sha256(data).digest()])
    except (OSError, StoreError):
        return  # a read-only store is read without its cache


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _unpack(file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if COLUMNS[name] in ("int64", "float64"):
        return file[name]
    return _column(json.loads(file[name].tobytes()), COLUMNS[name])
