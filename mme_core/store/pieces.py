"""A window of a store, read piece by piece: no array of it is in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mme_core.errors import StoreError
from mme_core.spec import TUBELET
from mme_core.store.layout import ArrayLayout, shard_name
from mme_core.store.reader import ChunkReader


@dataclass(frozen=True)
class StoredWindow:
    """Tubelets of one video as they are stored, without the padding of a short video.

    row        the video's row in the table of the store or union
    shard      number of the shard in its store
    low, high  rows of the shard's arrays, `high` exclusive
    step       rows from one tubelet of the window to the next
    """

    reader: ChunkReader
    layouts: Mapping[str, ArrayLayout]
    row: Mapping[str, Any]
    shard: int
    low: int
    high: int
    step: int

    def parts(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yields an array chunk by chunk: (number of the first tubelet, rows [some, *row]).

        Rows hold P × P patches, of which the video has hp × wp. A part shares its memory with the
        next one. Raises StoreError for what is missing or damaged.
        """
        read = 0
        layout = self.layouts[name]
        for rows in self.reader.parts(self.shard, layout, self.low, self.high):
            yield -(-read // self.step), rows[-read % self.step :: self.step]
            read += len(rows)

    def frames(self) -> list[np.ndarray]:
        """The coded frames, two of each tubelet, uint8 [bytes] each. Raises StoreError."""
        tubelets = np.arange(0, self.high - self.low, self.step)
        return self.frames_at((TUBELET * tubelets[:, None] + np.arange(TUBELET)).ravel())

    def frames_at(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The coded frames of these numbers, uint8 [bytes] each. Raises StoreError.

        numbers  of the frames, counted from the first frame of the window: two for each *stored*
                 tubelet, whatever `step` is. They may lie behind the window.
        """
        shard, before = self.shard, 1 if self.low else 0
        first, last = TUBELET * self.low - before, TUBELET * self.low + int(numbers.max()) + 1
        ends = self.reader.rows(shard, self.layouts["frame_ends"], first, last)
        bounds = ends if before else np.concatenate([[0], ends])
        data = self.reader.rows(shard, self.layouts["frames"], int(bounds[0]), int(bounds[-1]))
        cuts = (bounds - bounds[0]).tolist()
        return [data[cuts[frame] : cuts[frame + 1]] for frame in numbers.tolist()]

    def damage(self, what: str) -> StoreError:
        """The error for a part of the window that cannot be used."""
        name = shard_name(self.shard)
        return StoreError(f"{self.reader.place.at(name)}: {what}; `mme repair` makes {name} anew")
