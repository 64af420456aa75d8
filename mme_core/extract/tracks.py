"""Tracks points through flow: p_{l+1} = p_l + F(p_l), without rounding (paper, section 3.2)."""

from __future__ import annotations

import numpy as np


def sample(image_HWC: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    """Interpolates an image bilinearly at points: float32 [N, C].

    image_HWC  float32
    points_N2  (x, y) in pixels; a point outside the image reads the nearest border pixel
    """
    x_N, y_N = points_N2.T
    return Sampler(x_N, y_N, image_HWC.shape[:2]).read(image_HWC)


class Sampler:
    """Interpolates several images of one shape at the same points, as `sample` does.

    x and y of the points are apart: numpy is ten times slower where the last axis has length 2.
    """

    def __init__(self, x_N: np.ndarray, y_N: np.ndarray, shape: tuple[int, ...]) -> None:
        """shape: (height, width) of the images."""
        height, width = shape
        left, self._x = _split(x_N, width)
        top, self._y = _split(y_N, height)
        self._index = top * width + left
        self._right, self._down = min(1, width - 1), min(1, height - 1) * width

    def read(self, image_HWC: np.ndarray) -> np.ndarray:
        """Returns the values of a float32 image at the points: float32 [N, C]."""
        channels = image_HWC.shape[-1]
        pixels = image_HWC.reshape(-1, channels)
        x, y = self._x.repeat(channels, axis=1), self._y.repeat(channels, axis=1)

        def read(offset: int) -> np.ndarray:
            return pixels.take(self._index + offset, axis=0)

        upper = _between(read(0), read(self._right), x)
        lower = _between(read(self._down), read(self._down + self._right), x)
        return _between(upper, lower, y)


def nearest(places: np.ndarray, size: int) -> np.ndarray:
    """Moves places outside an axis of `size` pixels to the first or last pixel: float32."""
    return np.minimum(np.maximum(places, 0, dtype=np.float32), np.float32(size - 1))


def _split(places_N: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixel before each place on an axis of `size` pixels, and the rest of the way.

    intp [N], and float32 [N, 1], 0 … 1.
    """
    places_N = nearest(places_N, size)
    pixel = np.minimum(places_N.astype(np.intp), max(size - 2, 0))
    return pixel, (places_N - pixel.astype(np.float32))[:, None]


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
