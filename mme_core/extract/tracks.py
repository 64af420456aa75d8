"""Tracks points through flow: p_{l+1} = p_l + F(p_l), without rounding (paper, section 3.2)."""

from __future__ import annotations

import numpy as np


def sample(image_HWC: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    """Interpolates an image bilinearly at points: float32 [N, C].

    image_HWC  float32
    points_N2  (x, y) in pixels; a point outside the image reads the nearest border pixel
    """
    return Sampler(points_N2, image_HWC.shape[:2]).read(image_HWC)


class Sampler:
    """Interpolates several images of one shape at the same points, as `sample` does."""

    def __init__(self, points_N2: np.ndarray, shape: tuple[int, ...]) -> None:
        """shape: (height, width) of the images."""
        height, width = shape
        last = np.array([width - 1, height - 1], np.float32)
        position = np.clip(points_N2, 0, last, dtype=np.float32)
        corner = np.minimum(position.astype(np.intp), np.maximum(last.astype(np.intp) - 1, 0))
        part = position - corner.astype(np.float32)
        self._x, self._y = part[:, :1], part[:, 1:]
        self._index = corner[:, 1] * width + corner[:, 0]
        self._right, self._down = min(1, width - 1), min(1, height - 1) * width

    def read(self, image_HWC: np.ndarray) -> np.ndarray:
        """Returns the values of a float32 image at the points: float32 [N, C]."""
        pixels = image_HWC.reshape(-1, image_HWC.shape[-1])

        def read(offset: int) -> np.ndarray:
            return pixels.take(self._index + offset, axis=0)

        upper = _between(read(0), read(self._right), self._x)
        lower = _between(read(self._down), read(self._down + self._right), self._x)
        return _between(upper, lower, self._y)


def _between(first: np.ndarray, second: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Returns first + part · (second − first), computed in the memory of `second`."""
    second -= first
    second *= part
    second += first
    return second


def inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whether points (x, y) [..., 2] lie inside an image of (height, width): bool [...]."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x <= shape[1] - 1) & (y >= 0) & (y <= shape[0] - 1)


def consistent(
    forward_N2: np.ndarray, backward_HW2: np.ndarray, moved_N2: np.ndarray
) -> np.ndarray:
    """Checks forward flow against backward flow: bool [N].

    forward_N2    F(p), the step of each point, pixels
    backward_HW2  B, the flow from the next frame back
    moved_N2      p + F(p), where the steps end

    A step is inconsistent where |F(p) + B(p + F(p))| > max(1, 0.05 · (|F| + |B|)).
    """
    backward_N2 = sample(backward_HW2, moved_N2)
    error = np.linalg.norm(forward_N2 + backward_N2, axis=-1)
    length = np.linalg.norm(forward_N2, axis=-1) + np.linalg.norm(backward_N2, axis=-1)
    return error <= np.maximum(1, 0.05 * length)
