"""Are frames stored twice, as when 15 frames a second are kept in a file of 30?"""

from __future__ import annotations

import cv2
import numpy as np

_MOVES = 0.5  # mean difference of two frames, grey levels of 255, that is more than noise
_STANDS = 0.1  # share of the last movement that a repeated frame, coded again, may differ by
_OFTEN = 1 / 8  # share of the pairs; pictures of 24 a second shown at 30 repeat every fifth
_CHANCE = 2  # so few may be an accident


class Repeats:
    """Takes consecutive frames' luma and counts where a picture that moved is shown again."""

    def __init__(self) -> None:
        self.pairs = self.count = 0
        self._movement = 0.0  # the last one that was more than noise
        self._stands = False

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """A pair of frames, uint8 of one shape."""
        difference = cv2.norm(before, after, cv2.NORM_L1) / before.size
        stands = self._movement > 0 and difference <= _STANDS * self._movement
        self.pairs += 1
        self.count += stands and not self._stands  # a long standstill counts once
        self._stands = stands
        if difference > _MOVES:
            self._movement = difference

    @property
    def often(self) -> bool:
        return self.count > max(_OFTEN * self.pairs, _CHANCE)
