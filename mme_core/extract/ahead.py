"""Frames that can be seen before they are taken."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import numpy as np

from mme_core.canvas import Canvas
from mme_core.io.frame import Frame


class Ahead:
    """Iterates over frames. `see` shows the next ones, which stay to be taken."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames, self._seen = frames, deque[Frame]()

    def __iter__(self) -> Iterator[Frame]:
        while self.see(1):
            yield self._seen.popleft()

    def see(self, count: int) -> list[Frame]:
        """Returns the next `count` frames, or as many as there are."""
        self._seen.extend(itertools.islice(self._frames, max(count - len(self._seen), 0)))
        return list(itertools.islice(self._seen, count))


def region_images(frames: list[Frame], canvas: Canvas) -> np.ndarray:
    """Returns the region of each frame (see `mme_core.canvas`): RGB uint8 [T, 3, H, W]."""
    images = [canvas.crop_region(canvas.resize(frame.rgb())) for frame in frames]
    return np.stack(images).transpose(0, 3, 1, 2).copy()
