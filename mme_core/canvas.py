"""Geometry: source frame -> resized frame -> canvas and the region around it -> grid of points.

The *canvas* is the part of the resized frame that is divided into patches. The *region* adds up to
64 pixels of the frame on each side of it. Other modules pass positions in canvas pixels (the centre
of the canvas' first pixel is 0, 0), so a position in the region may be negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from mme_core.spec import TargetSpec

MARGIN = 64  # pixels of the frame kept around the canvas, so that points may leave it

# A side longer than _WHOLE_UP_TO times what the region needs is cut to _CUT_TO times before the
# resize. Shorter sides stay whole, because rounding the sides of a cut frame changes its scale.
_WHOLE_UP_TO, _CUT_TO = 5, 2


@dataclass(frozen=True)
class Canvas:
    """The position of a video's canvas. All numbers except hp and wp are pixels.

    height, width            source frame, rotation applied
    source                   (top, left, bottom, right) of the part of it that is resized: all of
                             it, or the middle of a very long frame; end exclusive
    resized                  (height, width) after the resize
    top, left                the canvas' first pixel in the resized frame
    hp, wp                   the canvas' size in patches
    patch                    side of a patch
    region                   (top, left, bottom, right) in the resized frame, end exclusive
    """

    height: int
    width: int
    source: tuple[int, int, int, int]
    resized: tuple[int, int]
    top: int
    left: int
    hp: int
    wp: int
    patch: int
    region: tuple[int, int, int, int]

    @property
    def offset(self) -> tuple[int, int]:
        """(x, y) of the canvas' first pixel in the region: add it to go from canvas to region."""
        return self.left - self.region[1], self.top - self.region[0]

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resizes a source frame, uint8 [height, width(, 3)]: area filter down, cubic up."""
        top, left, bottom, right = self.source
        image = image[top:bottom, left:right]
        if image.shape[:2] == self.resized:
            return image
        height, width = self.resized
        shrinks = height * width <= image.shape[0] * image.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cv2.resize(image, (width, height), interpolation=method)

    def crop(self, resized: np.ndarray) -> np.ndarray:
        """Returns the canvas of a resized frame, [patch · hp, patch · wp(, 3)]."""
        bottom, right = self.top + self.hp * self.patch, self.left + self.wp * self.patch
        return resized[self.top : bottom, self.left : right]

    def crop_region(self, resized: np.ndarray) -> np.ndarray:
        """Returns the region of a resized frame."""
        top, left, bottom, right = self.region
        return resized[top:bottom, left:right]


def plan_canvas(height: int, width: int, spec: TargetSpec) -> Canvas:
    """Returns the canvas of a video whose rotated frames have height × width pixels."""
    scale = spec.short_side / min(height, width)
    needed = (spec.long_side + 2 * MARGIN) / scale
    margins = [_unneeded(side, needed) for side in (height, width)]
    source = (margins[0], margins[1], height - margins[0], width - margins[1])
    resized = _resized(height - 2 * margins[0], width - 2 * margins[1], spec)
    hp, wp = (min(side, spec.long_side) // spec.patch for side in resized)
    top, left = (resized[0] - hp * spec.patch) // 2, (resized[1] - wp * spec.patch) // 2
    region = (
        max(top - MARGIN, 0),
        max(left - MARGIN, 0),
        min(top + hp * spec.patch + MARGIN, resized[0]),
        min(left + wp * spec.patch + MARGIN, resized[1]),
    )
    return Canvas(height, width, source, resized, top, left, hp, wp, spec.patch, region)


def _unneeded(side: int, needed: float) -> int:
    """Returns the number of source pixels to cut off at each end of a very long side.

    Both ends lose the same number, so the canvas stays exactly in the middle.
    """
    if side <= _WHOLE_UP_TO * needed:
        return 0
    return math.floor((side - _CUT_TO * needed) / 2)


def _resized(height: int, width: int, spec: TargetSpec) -> tuple[int, int]:
    scale = spec.short_side / min(height, width)
    longer = max(2 * round(max(height, width) * scale / 2), spec.short_side)
    return (spec.short_side, longer) if height <= width else (longer, spec.short_side)


def grid_points(hp: int, wp: int, spec: TargetSpec) -> np.ndarray:
    """Returns the start of every trajectory: float32 [hp, wp, K, 2] (x, y), canvas pixels."""
    cell = spec.patch // spec.grid
    centres = np.arange(spec.grid) * cell + (cell - 1) / 2
    y = np.arange(hp)[:, None, None, None] * spec.patch + centres[:, None]
    x = np.arange(wp)[:, None, None] * spec.patch + centres[None, :]
    shape = (hp, wp, spec.grid, spec.grid)
    points = np.stack([np.broadcast_to(x, shape), np.broadcast_to(y, shape)], axis=-1)
    return points.reshape(hp, wp, spec.points, 2).astype(np.float32)


def region_grid(canvas: Canvas, spec: TargetSpec) -> np.ndarray:
    """Returns the start of every trajectory: float32 [hp·wp·K, 2] (x, y), pixels of the region."""
    return grid_points(canvas.hp, canvas.wp, spec).reshape(-1, 2) + np.array(
        canvas.offset, np.float32
    )
