"""Histograms of the flow in the cells around a patch's points: HOF and MBH (`mme_core.cells`)."""

from __future__ import annotations

import cv2
import numpy as np

from mme_core.canvas import Canvas
from mme_core.cells import DIRECTIONS, STILL
from mme_core.spec import TargetSpec


class FlowCells:
    """Computes `hof` and `mbh`, as far as `spec.cells` names them, of flow fields of one size."""

    def __init__(self, canvas: Canvas, spec: TargetSpec) -> None:
        self._names = [name for name in ("hof", "mbh") if name in spec.cells]
        self._bins = spec.hog_bins
        x, y = canvas.offset
        height, width = canvas.hp * canvas.patch, canvas.wp * canvas.patch
        self._rows, self._columns = slice(y, y + height), slice(x, x + width)
        self._count = canvas.hp * canvas.wp * spec.points
        numbers = np.arange(self._count).reshape(canvas.hp, canvas.wp, spec.grid, spec.grid)
        grid = numbers.transpose(0, 2, 1, 3).reshape(canvas.hp * spec.grid, canvas.wp * spec.grid)
        pixels = grid.repeat(spec.hog_cell, axis=0).repeat(spec.hog_cell, axis=1)
        self._cell = pixels.ravel()  # number of each canvas pixel's cell

    def of(self, flow_HW2: np.ndarray) -> dict[str, np.ndarray]:
        """{name: float32 [N, D]} of the region's flow; N = hp·wp·K cells, in the points' order."""
        compute = {"hof": self._hof, "mbh": self._mbh}
        return {name: compute[name](flow_HW2) for name in self._names}

    def _hof(self, flow: np.ndarray) -> np.ndarray:
        x, y = (flow[self._rows, self._columns, axis].ravel() for axis in (0, 1))
        speed, angle = _polar(x, y)
        moves = speed >= STILL
        directions = self._histogram(speed * moves, angle * (DIRECTIONS / (2 * np.pi)), DIRECTIONS)
        still = np.bincount(self._cell, ~moves, self._count)[:, None]
        return np.concatenate([directions, still], axis=1, dtype=np.float32, casting="same_kind")

    def _mbh(self, flow: np.ndarray) -> np.ndarray:
        grown = cv2.copyMakeBorder(flow, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        gx = (grown[1:-1, 2:] - grown[1:-1, :-2])[self._rows, self._columns]
        gy = (grown[2:, 1:-1] - grown[:-2, 1:-1])[self._rows, self._columns]
        parts = []
        for axis in (0, 1):
            strength, angle = _polar(gx[..., axis].ravel(), gy[..., axis].ravel())
            place = angle * (self._bins / np.pi) - 0.5
            parts.append(self._histogram(strength, place, self._bins))
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")

    def _histogram(self, weight: np.ndarray, place: np.ndarray, bins: int) -> np.ndarray:
        """Sums of the weights of each cell, shared between the bins nearest to `place`, cyclic."""
        low = np.floor(place)
        upper = weight * (place - low)
        index = low.astype(np.intp)
        size = self._count * bins
        votes = np.bincount(self._cell * bins + index % bins, weight - upper, size)
        votes += np.bincount(self._cell * bins + (index + 1) % bins, upper, size)
        return votes.reshape(self._count, bins)


def _polar(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length, and angle in 0 … 2π from right over down; exact enough to share a vote."""
    return np.hypot(x, y), np.arctan2(y, x) % (2 * np.pi)
