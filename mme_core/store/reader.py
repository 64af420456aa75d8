"""Reading rows straight from the files of Zarr shards.

zarr-python takes 1–2 ms an array for each access and runs threads that do not survive a fork; a
clip needs seven arrays. The format is simple enough to read directly: a file ends with an index of
(offset, size) of its chunks, and each chunk ends with a crc32c.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from mme_core.errors import StoreError
from mme_core.scratch import Scratch
from mme_core.store.layout import (
    MISSING,
    ArrayLayout,
    chunk_size,
    decode_chunk,
    decode_index,
    shard_name,
)

_CACHED_INDICES = 8192  # of files; half a kilobyte each


class Source(Protocol):
    """Where the files of shards are read from; a Place, for example."""

    def at(self, name: str) -> str: ...

    def read_tail(self, name: str, size: int) -> bytes: ...

    def read_range(self, name: str, start: int, end: int) -> bytes: ...


class ChunkReader:
    """Reads rows of the arrays of a store's shards. It holds no open file, so it may be forked."""

    def __init__(self, place: Source) -> None:
        self.place = place
        self._index = functools.lru_cache(_CACHED_INDICES)(self._load_index)
        self._scratch = Scratch()

    def __reduce__(self) -> tuple[type[ChunkReader], tuple[Source]]:
        return ChunkReader, (self.place,)

    def rows(self, shard: int, layout: ArrayLayout, start: int, stop: int) -> np.ndarray:
        """Returns rows start … stop − 1 of an array, [stop − start, *row].

        Raises StoreError, naming the shard, the array and the rows, for what is missing or damaged.
        """
        parts = list(self._parts(shard, layout, start, stop, None))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, *layout.row), layout.dtype)

    def parts(self, shard: int, layout: ArrayLayout, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yields the same rows chunk by chunk, each part [some, *row].

        A part shares its memory with the next one, so use it before you ask for the next. Fresh
        memory would cost as much time as decoding.
        """
        return self._parts(shard, layout, start, stop, self._scratch.of(chunk_size(layout)))

    def _parts(
        self, shard: int, layout: ArrayLayout, start: int, stop: int, out: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        while start < stop:
            file, first = divmod(start, layout.file)
            last = min(stop - file * layout.file, layout.file)
            yield from self._file_rows(shard, layout, file, first, last, out)
            start = file * layout.file + last

    def _file_rows(
        self,
        shard: int,
        layout: ArrayLayout,
        file: int,
        first: int,
        last: int,
        out: np.ndarray | None,
    ) -> Iterator[np.ndarray]:
        """Yields rows first … last − 1 of one file chunk by chunk, after a single read."""
        chunks = range(first // layout.chunk, (last - 1) // layout.chunk + 1)
        index = self._index(shard, layout, file)[chunks.start : chunks.stop].tolist()
        for number, (offset, _) in zip(chunks, index):
            if offset == MISSING:
                raise self._damage(shard, layout, file, number, number + 1, "the chunk is missing")
        begin = min(offset for offset, _ in index)
        end = max(offset + size for offset, size in index)
        name = f"{shard_name(shard)}/{layout.key(file)}"
        data = np.frombuffer(self._read(shard, layout, file, name, begin, end), np.uint8)
        for number, (offset, size) in zip(chunks, index):
            try:
                chunk = decode_chunk(layout, data[offset - begin : offset - begin + size], out)
            except ValueError as error:
                raise self._damage(shard, layout, file, number, number + 1, str(error)) from error
            low = number * layout.chunk
            yield chunk[max(first - low, 0) : last - low]

    def _read(
        self, shard: int, layout: ArrayLayout, file: int, name: str, begin: int, end: int
    ) -> bytes:
        try:
            return self.place.read_range(name, begin, end)
        except OSError as error:
            count = layout.file // layout.chunk
            raise self._damage(shard, layout, file, 0, count, str(error)) from error

    def _load_index(self, shard: int, layout: ArrayLayout, file: int) -> np.ndarray:
        name = f"{shard_name(shard)}/{layout.key(file)}"
        count = layout.file // layout.chunk
        try:
            return decode_index(layout, self.place.read_tail(name, layout.index_size))
        except FileNotFoundError as error:
            raise self._damage(shard, layout, file, 0, count, "the file is missing") from error
        except ValueError as error:
            reason = "the file's index is damaged or cut off"
            raise self._damage(shard, layout, file, 0, count, reason) from error
        except OSError as error:
            raise self._damage(shard, layout, file, 0, count, str(error)) from error

    def _damage(
        self, shard: int, layout: ArrayLayout, file: int, first: int, last: int, reason: str
    ) -> StoreError:
        base = file * layout.file
        rows = f"{base + first * layout.chunk}–{base + last * layout.chunk - 1}"
        name = shard_name(shard)
        return StoreError(
            f"{self.place.at(name)}: array '{layout.name}', rows {rows} "
            f"({layout.key(file)}): {reason}; `mme repair` makes {name} anew"
        )
