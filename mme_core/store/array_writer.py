"""Writing one array of a shard, a file at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from mme_core.io.place import Place
from mme_core.store.layout import ArrayLayout, encode_chunk, encode_file


@dataclass(frozen=True)
class _Progress:
    """How far an array is written.

    files   number of files that are written
    chunks  coded chunks of the next file
    rows    rows that do not fill a chunk yet
    """

    files: int
    chunks: list[bytes]
    rows: np.ndarray


class ArrayWriter:
    """Encodes the rows of one array a chunk at a time, and writes them a file at a time.

    The result is a Zarr array. Zarr's own writer takes several times longer, because it hands each
    chunk to another thread. Each file is written once and replaces what an earlier writer left
    there. The metadata, which hold the final length, are written at the end.
    """

    def __init__(self, place: Place, folder: str, layout: ArrayLayout) -> None:
        self.layout = layout
        self._place = place
        self._folder = folder
        self._chunk = np.zeros((layout.chunk, *layout.row), layout.dtype)
        self._filled = 0  # rows of the chunk
        self._chunks: list[bytes] = []
        self._files = 0
        self.mark()

    def extend(self, rows: np.ndarray) -> None:
        """Appends rows [n, …]. A row that is smaller than the array's is padded with zeros."""
        inner = tuple(map(slice, rows.shape[1:]))
        while len(rows):
            fits = rows[: self.layout.chunk - self._filled]
            stop = self._filled + len(fits)
            self._chunk[(slice(self._filled, stop), *inner)] = fits
            self._filled, rows = stop, rows[len(fits) :]
            if stop == self.layout.chunk:
                self._end_chunk()

    def mark(self) -> None:
        """Remembers this place for `rewind`."""
        rows = self._chunk[: self._filled].copy()
        self._mark = _Progress(self._files, self._chunks.copy(), rows)

    def rewind(self) -> None:
        """Takes back all rows since the last `mark`."""
        for file in range(self._mark.files, self._files):
            self._place.remove(f"{self._folder}/{self.layout.key(file)}")
        self._files, self._chunks = self._mark.files, self._mark.chunks.copy()
        self._chunk[:] = 0
        self._filled = len(self._mark.rows)
        self._chunk[: self._filled] = self._mark.rows

    @property
    def keys(self) -> list[str]:
        """Names of the array's files, once it is finished."""
        names = [self.layout.key(file).partition("/")[2] for file in range(self._files)]
        return [*names, "zarr.json"]

    def finish(self) -> None:
        """Writes the rest of the rows, and the metadata."""
        whole = self._files * self.layout.file + len(self._chunks) * self.layout.chunk
        length = whole + self._filled
        if self._filled:
            self._end_chunk()
        if self._chunks:
            self._end_file()
        self._place.write(
            f"{self._folder}/{self.layout.name}/zarr.json", metadata(self.layout, length)
        )

    def _end_chunk(self) -> None:
        self._chunks.append(encode_chunk(self.layout, self._chunk))
        self._chunk[:] = 0
        self._filled = 0
        if len(self._chunks) * self.layout.chunk == self.layout.file:
            self._end_file()

    def _end_file(self) -> None:
        key = f"{self._folder}/{self.layout.key(self._files)}"
        self._place.write(key, encode_file(self.layout, self._chunks))
        self._chunks = []
        self._files += 1


def metadata(layout: ArrayLayout, rows: int) -> bytes:
    """Returns the content of zarr.json for an array with this number of rows."""
    described = _description(layout)
    return json.dumps(described | {"shape": [rows, *layout.row]}, indent=2).encode()


@lru_cache
def _description(layout: ArrayLayout) -> dict[str, Any]:
    """Returns the metadata of an empty array. Zarr takes some milliseconds to make them."""
    files: dict[str, Any] = {}
    zarr.create_array(MemoryStore(files), **layout.zarr_options())
    return json.loads(files["zarr.json"].to_bytes())
