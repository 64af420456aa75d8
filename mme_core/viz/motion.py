"""Draws trajectories over pictures: fading tails, arrows and colour fields.

Coordinates are canvas pixels, and a pixel's centre is a whole number. `scale` enlarges the picture
first, so that sub-pixel motion of a small canvas is visible.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from mme_core.spec import TargetSpec
from mme_core.viz.colour import motion_colour, speed_limit
from mme_core.viz.grids import enlarge

_SHIFT = 4  # OpenCV draws at 1/16 pixel


def draw_tracks(
    image: np.ndarray,
    paths: np.ndarray,
    valid: np.ndarray,
    *,
    limit: float | None = None,
    scale: int = 1,
    opacity: np.ndarray | None = None,
    heads: np.ndarray | bool = True,
) -> np.ndarray:
    """Draws tails, coloured by the direction of each step, with a dot at the last position.

    image    uint8 [H, W, 3]
    paths    float [N, M + 1, 2] (x, y): M steps of each of N points, oldest first
    valid    bool [N]; an invalid point is left out
    limit    length of a step in full colour, pixels. Default: the 95 % quantile of the drawn steps
    opacity  float [M] or [N, M], 0 … 1 for each step. Default: fades towards the oldest
    heads    whether the last position gets a dot: one bool for all, or bool [N]
    Returns uint8 [scale·H, scale·W, 3].
    """
    valid = np.asarray(valid, bool)
    heads = np.broadcast_to(heads, valid.shape)[valid]
    paths = np.asarray(paths, float)[valid]
    steps = np.diff(paths, axis=1)
    if opacity is None:
        opacity = np.linspace(0.2, 1.0, max(steps.shape[1], 1))[: steps.shape[1]]
    elif np.ndim(opacity) == 2:
        opacity = np.asarray(opacity)[valid]
    opacity = np.broadcast_to(opacity, steps.shape[:2])
    colours = motion_colour(steps, limit or speed_limit(steps))
    layer = _Layer(enlarge(image, scale), scale)
    for step in range(steps.shape[1]):
        for point in np.flatnonzero(opacity[:, step] > 0.02):
            start, end = paths[point, step], paths[point, step + 1]
            layer.line(start, end, colours[point, step], opacity[point, step])
    recent = colours[:, -1] if steps.shape[1] else np.full((len(paths), 3), 255, np.uint8)
    # A resting point is faint, so that a dense grid does not hide moving points.
    strong = 0.35 + 0.65 * (255 - recent.min(-1, initial=255)) / 255
    for point in np.flatnonzero(heads):
        layer.dot(paths[point, -1], recent[point], max(scale * 0.45, 0.75), strong[point])
    return layer.merged()


def draw_arrows(
    image: np.ndarray,
    starts: np.ndarray,
    vectors: np.ndarray,
    valid: np.ndarray,
    *,
    limit: float | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Draws an arrow from each of `starts` [N, 2] along `vectors` [N, 2], both in canvas pixels.

    The colour shows the direction. Vectors shorter than a quarter of a pixel become dots, because
    their direction is noise.
    Returns uint8 [scale·H, scale·W, 3].
    """
    valid = np.asarray(valid, bool)
    starts, vectors = np.asarray(starts, float)[valid], np.asarray(vectors, float)[valid]
    colours = motion_colour(vectors, limit or speed_limit(vectors))
    layer = _Layer(enlarge(image, scale), scale)
    for start, vector, colour in zip(starts, vectors, colours):
        if np.hypot(*vector) < 0.25:
            layer.dot(start, colour, 0.75)
        else:
            layer.arrow(start, start + vector, colour)
    return layer.merged()


def draw_trails(
    image: np.ndarray, paths: np.ndarray, valid: np.ndarray, *, limit: float, scale: int = 1
) -> np.ndarray:
    """Whole trajectories as thick arrows along their paths, coloured by their mean step.

    paths  float [N, L + 1, 2] (x, y), canvas pixels; valid: bool [N]
    limit  mean step in full colour, pixels
    A trajectory that ends within half a pixel of its start is a dot.
    Returns uint8 [scale·H, scale·W, 3].
    """
    paths = np.asarray(paths, float)[np.asarray(valid, bool)]
    moved = paths[:, -1] - paths[:, 0]
    colours = motion_colour(moved / max(paths.shape[1] - 1, 1), limit)
    layer = _Layer(enlarge(image, scale), scale)
    for path, whole, colour in zip(paths, moved, colours):
        if np.hypot(*whole) < 0.5:
            layer.dot(path[0], colour, max(scale * 0.4, 0.75))
            continue
        for start, end in pairwise(path):
            layer.line(start, end, colour, 1.0, width=max(1, round(0.6 * scale)))
        layer.tip(path[-1], whole, colour)
    return layer.merged()


def flow_picture(
    vectors: np.ndarray, valid: np.ndarray, spec: TargetSpec, limit: float, scale: int = 1
) -> np.ndarray:
    """Draws one vector of each point as a colour: [h, w, K, 2] to uint8 [P·h·scale, P·w·scale, 3].

    Each point fills its own cell of the patch (P pixels), without interpolation. Invalid points are
    grey.
    """
    h, w, _, _ = vectors.shape
    m, side = spec.grid, spec.patch // spec.grid * scale
    shown = np.where(valid[..., None], vectors, np.nan).reshape(h, w, m, m, 2)
    cells = shown.transpose(0, 2, 1, 3, 4).reshape(h * m, w * m, 2)
    return motion_colour(cells, limit).repeat(side, axis=0).repeat(side, axis=1)


class _Layer:
    """A layer of premultiplied colour with its opacity: later drawings cover earlier ones."""

    def __init__(self, image: np.ndarray, scale: int) -> None:
        self.image, self.scale = image, scale
        self.colour = np.zeros_like(image)
        self.alpha = np.zeros(image.shape[:2], np.uint8)

    def _place(self, point: np.ndarray) -> tuple[int, int]:
        x, y = ((point + 0.5) * self.scale - 0.5) * (1 << _SHIFT)
        return round(x), round(y)

    def _ink(self, colour: np.ndarray, opacity: float) -> tuple[tuple[float, ...], float]:
        return tuple(float(value) * opacity for value in colour), 255 * opacity

    def line(
        self,
        start: np.ndarray,
        end: np.ndarray,
        colour: np.ndarray,
        opacity: float,
        width: int = 1,
    ) -> None:
        ends, (ink, alpha) = (self._place(start), self._place(end)), self._ink(colour, opacity)
        cv2.line(self.colour, *ends, ink, width, cv2.LINE_AA, _SHIFT)
        cv2.line(self.alpha, *ends, alpha, width, cv2.LINE_AA, _SHIFT)

    def tip(self, end: np.ndarray, along: np.ndarray, colour: np.ndarray) -> None:
        """The head of an arrow that ends there: at most 3 pixels long, half of a short arrow."""
        length = min(3.0, 0.5 * np.hypot(*along))
        ahead = along / np.hypot(*along) * length
        across = ahead[::-1] * (-0.55, 0.55)
        corners = [
            self._place(end + 0.4 * ahead),
            *(self._place(end - 0.6 * ahead + side * across) for side in (1, -1)),
        ]
        (ink, alpha), shape = self._ink(colour, 1.0), np.array(corners, np.int32)
        cv2.fillConvexPoly(self.colour, shape, ink, cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(self.alpha, shape, alpha, cv2.LINE_AA, _SHIFT)

    def arrow(self, start: np.ndarray, end: np.ndarray, colour: np.ndarray) -> None:
        # OpenCV's tip grows with the length. A tip of constant size is clearer in a dense field.
        length = np.hypot(*(end - start))
        tip = min(2.5 / length, 0.5)
        ends, (ink, alpha) = (self._place(start), self._place(end)), self._ink(colour, 1.0)
        cv2.arrowedLine(self.colour, *ends, ink, 1, cv2.LINE_AA, _SHIFT, tip)
        cv2.arrowedLine(self.alpha, *ends, alpha, 1, cv2.LINE_AA, _SHIFT, tip)

    def dot(
        self, point: np.ndarray, colour: np.ndarray, radius: float, opacity: float = 1.0
    ) -> None:
        centre, (ink, alpha) = self._place(point), self._ink(colour, opacity)
        size = round(radius * (1 << _SHIFT))
        cv2.circle(self.colour, centre, size, ink, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(self.alpha, centre, size, alpha, -1, cv2.LINE_AA, _SHIFT)

    def merged(self) -> np.ndarray:
        cover = self.alpha[..., None].astype(np.uint16)
        under = (self.image * (255 - cover) + 127) // 255
        return np.minimum(under + self.colour, 255).astype(np.uint8)
