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
    chunks  coded chunks of the file that comes next
    rows    the rows after these chunks
    """

    files: int
    chunks: list[bytes]
    rows: np.ndarray


class ArrayWriter:
    """Rows of one array, coded a chunk at a time and written a file at a time.

    The coding is Zarr's, which reads the files. Its own writer takes several times longer, because
    it hands each chunk to another thread. Each file is written once, whatever an earlier writer
    left under its name, and the array's metadata with the final length at the end.
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
        """Appends rows. Each may be shorter than the array's along any axis: zeros follow."""
        inner = tuple(map(slice, rows.shape[1:]))
        while len(rows):
            fits = rows[: self.layout.chunk - self._filled]
            stop = self._filled + len(fits)
            self._chunk[(slice(self._filled, stop), *inner)] = fits
            self._filled, rows = stop, rows[len(fits) :]
            if stop == self.layout.chunk:
                self._end_chunk()

    def mark(self) -> None:
        """`rewind` comes back to here."""
        rows = self._chunk[: self._filled].copy()
        self._mark = _Progress(self._files, self._chunks.copy(), rows)

    def rewind(self) -> None:
        for file in range(self._mark.files, self._files):
            self._place.remove(f"{self._folder}/{self.layout.key(file)}")
        self._files, self._chunks = self._mark.files, self._mark.chunks.copy()
        self._chunk[:] = 0
        self._filled = len(self._mark.rows)
        self._chunk[: self._filled] = self._mark.rows

    @property
    def keys(self) -> list[str]:
        """Its files, once it is finished."""
        names = [self.layout.key(file).partition("/")[2] for file in range(self._files)]
        return [*names, "zarr.json"]

    def finish(self) -> None:
        """Writes what is left, and the metadata."""
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
    """Zarr's description of an array of so many rows: the content of its zarr.json."""
    described = _description(layout)
    return json.dumps(described | {"shape": [rows, *layout.row]}, indent=2).encode()


@lru_cache
def _description(layout: ArrayLayout) -> dict[str, Any]:
    """The description of an empty array. Zarr takes some milliseconds for it."""
    files: dict[str, Any] = {}
    zarr.create_array(MemoryStore(files), **layout.zarr_options())
    return json.loads(files["zarr.json"].to_bytes())
