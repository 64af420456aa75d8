"""Memory that is used again and again: the first touch of fresh memory takes long."""

from __future__ import annotations

import threading

import numpy as np


class Scratch(threading.local):
    """Memory that each thread has for itself. Every call of `of` returns the same memory.

    It holds zeros at first, and later what was written last.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def of(self, size: int) -> np.ndarray:
        """Returns the memory, uint8 [size]."""
        if len(self._memory) < size:
            self._memory = np.zeros(size, np.uint8)
        return self._memory[:size]
