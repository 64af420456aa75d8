"""Square crops of a canvas by whole patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """A square crop of the canvas, in patches; `flip` mirrors it left to right afterwards."""

    top: int
    left: int
    size: int
    flip: bool = False


def draw_view(
    rng: np.random.Generator, hp: int, wp: int, sizes: tuple[int, int], flip: bool
) -> View:
    """A random crop of a canvas of hp × wp patches.

    Its side is uniform in sizes[0] … sizes[1] (as far as the canvas has room), its place uniform,
    and it is flipped in half of the draws where `flip` is set.
    """
    size = int(rng.integers(sizes[0], min(sizes[1], hp, wp) + 1))
    top, left = int(rng.integers(hp - size + 1)), int(rng.integers(wp - size + 1))
    mirrored = bool(rng.integers(2))  # drawn in any case: switching it keeps the other draws
    return View(top, left, size, flip and mirrored)


def centre_view(hp: int, wp: int, size: int) -> View:
    """The middle crop, not flipped."""
    return View((hp - size) // 2, (wp - size) // 2, size)
