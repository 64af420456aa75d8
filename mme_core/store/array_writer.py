"""Writing one array of a shard, a file at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import zarr
from zarr.storage import MemoryStore

from mme_core.io.place import Place
from mme_core.store.layout import ArrayLayout

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer


class ArrayWriter:
    """Rows of one array, gathered and written a file at a time.

    Zarr codes into memory, and whole files go out from there: so each is written once, whatever
    an earlier writer left under its name, and the array's metadata with the final length at the
    end.
    """

    def __init__(self, place: Place, folder: str, layout: ArrayLayout) -> None:
        self.layout = layout
        self._place = place
        self._folder = folder
        self._coded: dict[str, Buffer] = {}
        self._array = zarr.create_array(MemoryStore(self._coded), **layout.zarr_options())
        self._buffer = np.zeros((layout.file, *layout.row), layout.dtype)
        self._filled = 0
        self._files = 0
        self._mark = (0, 0)
        self._kept: np.ndarray | None = None  # the buffer at the mark, once its file was written

    def extend(self, rows: np.ndarray) -> None:
        while len(rows):
            fits = rows[: self.layout.file - self._filled]
            self._buffer[self._filled : self._filled + len(fits)] = fits
            self._filled += len(fits)
            rows = rows[len(fits) :]
            if self._filled == self.layout.file:
                self._write_file()
                if self._files == self._mark[0] + 1 and self._mark[1]:
                    self._kept, self._buffer = self._buffer, np.zeros_like(self._buffer)
                self._filled = 0

    def mark(self) -> None:
        """`rewind` comes back to here."""
        self._mark, self._kept = (self._files, self._filled), None

    def rewind(self) -> None:
        files, filled = self._mark
        for file in range(files, self._files):
            self._place.remove(f"{self._folder}/{self.layout.key(file)}")
        if self._kept is not None:
            self._buffer = self._kept
        self._files, self._filled, self._kept = files, filled, None

    @property
    def keys(self) -> list[str]:
        """Its files, once it is finished."""
        names = [self.layout.key(file).partition("/")[2] for file in range(self._files)]
        return [*names, "zarr.json"]

    def finish(self) -> None:
        """Writes what is left, and the metadata."""
        rows = self._files * self.layout.file + self._filled
        if self._filled:
            self._write_file()
        self._array.resize((rows, *self.layout.row))
        self._write("zarr.json")

    def _write_file(self) -> None:
        start = self._files * self.layout.file
        stop = start + self._filled
        self._array.resize((stop, *self.layout.row))
        with zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1}):
            self._array[start:stop] = self._buffer[: self._filled]
        self._write(self.layout.key(self._files).partition("/")[2])
        self._files += 1

    def _write(self, key: str) -> None:
        self._place.write(f"{self._folder}/{self.layout.name}/{key}", self._coded[key].to_bytes())
        if key != "zarr.json":
            del self._coded[key]
