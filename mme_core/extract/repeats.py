"""Detects repeated frames, such as a video of 15 frames per second in a file of 30."""

from __future__ import annotations

import cv2
import numpy as np

_MOVES = 0.5  # mean difference of two frames, in grey levels of 255, above noise
_STANDS = 0.1  # largest difference of a re-encoded repeat, as a share of the last movement
_OFTEN = 1 / 8  # share of repeated pairs; 24 frames per second shown at 30 repeat every fifth
_CHANCE = 2  # a number of repeats that may be an accident


class Repeats:
    """Takes the luma of consecutive frames and counts repeated frames in moving parts."""

    def __init__(self) -> None:
        self.pairs = self.count = 0
        self._movement = 0.0  # last difference above noise
        self._stands = False  # whether the previous pair was a repeat

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Adds a pair of consecutive frames, uint8 of the same shape."""
        difference = cv2.norm(before, after, cv2.NORM_L1) / before.size
        stands = self._movement > 0 and difference <= _STANDS * self._movement
        self.pairs += 1
        self.count += stands and not self._stands  # a long still scene counts once
        self._stands = stands
        if difference > _MOVES:
            self._movement = difference

    @property
    def often(self) -> bool:
        """Whether more frames are repeated than could be an accident."""
        return self.count > max(_OFTEN * self.pairs, _CHANCE)
