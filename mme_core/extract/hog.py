"""Histograms of oriented gradients (HOG) in a window around any sub-pixel position.

Gradients are central differences of luma. Each gradient adds its magnitude to the two bins nearest
to its unsigned orientation, with linear weights. Nine bins have their centres at 10°, 30°, … 170°;
the bins are cyclic. A window at a fractional position counts each border pixel by the covered part
of the pixel. This equals bilinear interpolation of the sums at the four whole positions around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from mme_core.extract.tracks import Sampler, nearest
from mme_core.spec import TargetSpec

# Magnitudes are whole multiples of 1/128 grey level. They fit uint16, and float32 adds whole
# numbers exactly below 2^24, so neither the order of the sum nor a mirrored image changes the
# result.
_UNIT = 128

# Bins are summed four at a time: numpy copies, and OpenCV sums, such pixels several times faster
# than pixels of nine numbers.
_GROUP = 4


class HogField:
    """Computes HOG at any window of an image. The next images must have the same shape.

    The memory is reused from image to image, because allocating it costs as much time as the sums.
    """

    def __init__(self, shape: tuple[int, int], spec: TargetSpec) -> None:
        """shape: (height, width) of the images."""
        self._spec = spec
        self._pad = (spec.hog_cell + 1) // 2  # width of the border that a window can reach
        grown = (shape[0] + 2 * self._pad) * (shape[1] + 2 * self._pad)
        sizes = [votes.shape[1] for votes in _votes(spec.hog_bins)]
        self._memory = [
            (np.empty(grown * size, np.uint16), np.empty(grown * size, np.float32))
            for size in sizes
        ]
        self._sums: list[np.ndarray] = []  # sums of the window that starts at each pixel
        self._shape = shape
        self._corner = (0, 0)  # (x, y) of the first pixel of the part in use

    def load(self, luma_HW: np.ndarray, around: Sequence[np.ndarray] = ()) -> None:
        """Takes the next image, uint8. Pixels outside of it count as zero.

        around  the points (x, y) [N, 2] at which HOG will be asked for. Default: anywhere. Only the
                part of the image that their windows touch is computed.
        """
        part = self._part(luma_HW, around)
        # np.take would copy indices of another type.
        codes = _gradient_codes(part, self._pad).astype(np.intp)
        self._sums = []
        for table, memory in zip(_votes(self._spec.hog_bins), self._memory):
            shape = (*codes.shape, table.shape[1])
            votes, sums = (flat[: math.prod(shape)].reshape(shape) for flat in memory)
            # No index is out of range. The mode "clip" lets numpy write to `out` without a copy.
            np.take(table, codes, axis=0, out=votes, mode="clip")
            cv2.boxFilter(
                votes,
                cv2.CV_32F,
                (self._spec.hog_cell, self._spec.hog_cell),
                dst=sums,
                anchor=(0, 0),
                normalize=False,
                borderType=cv2.BORDER_CONSTANT,
            )
            self._sums.append(sums)

    def _part(self, luma_HW: np.ndarray, around: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the part of the image around the points, and notes its corner."""
        self._corner = (0, 0)
        if not around:
            return luma_HW
        height, width = self._shape
        left, right = self._reach([points[:, 0] for points in around], width)
        top, bottom = self._reach([points[:, 1] for points in around], height)
        self._corner = left, top
        return luma_HW[top:bottom, left:right]

    def _reach(self, places: Sequence[np.ndarray], size: int) -> tuple[int, int]:
        """Returns the first pixel that a window around the places needs, and the end."""
        reach = self._spec.hog_cell + 2  # a window, its fraction, and the gradient's neighbours
        low, high = min(map(np.min, places)), max(map(np.max, places))
        first, last = nearest(np.array([low, high]), size).astype(int).tolist()
        return max(first - reach, 0), last + reach + 1

    def at(self, points_N2: np.ndarray) -> np.ndarray:
        """Returns HOG of the windows centred at the points (x, y), pixels: float32 [N, bins].

        The values are sums of gradient magnitudes, with luma in [0, 1]. A point outside the image
        is moved to its nearest border pixel.
        """
        sizes = self._shape[::-1]
        x_N, y_N = (  # of the windows' first pixels
            nearest(places, size) - (self._spec.hog_cell - 1) / 2 + self._pad - np.float32(corner)
            for places, size, corner in zip(points_N2.T, sizes, self._corner)
        )
        sampler = Sampler(x_N, y_N, self._sums[0].shape[:2])
        found = np.concatenate([sampler.read(sums) for sums in self._sums], axis=1)
        return found * np.float32(1 / (255 * _UNIT))


def _gradient_codes(luma_HW: np.ndarray, pad: int) -> np.ndarray:
    """Returns the row of `_votes` for every pixel: int32 [H + 2 pad, W + 2 pad].

    The image is padded by `pad` pixels on each side. A code is |gx| + 256·|gy| + 65536·(1 where
    the signs of gx and gy differ). Merging bytes is several times faster than arithmetic.
    """
    border = pad + 1
    image = cv2.copyMakeBorder(luma_HW, border, border, border, border, cv2.BORDER_REPLICATE)
    left, right, up, down = image[1:-1, :-2], image[1:-1, 2:], image[:-2, 1:-1], image[2:, 1:-1]
    gx, gy = cv2.absdiff(left, right), cv2.absdiff(up, down)
    # The padding adds nothing. Replicated pixels already make gx 0 left and right, gy 0 above and
    # below; this clears the other two sides of each.
    gx[:pad] = gx[-pad:] = 0
    gy[:, :pad] = gy[:, -pad:] = 0
    differ = cv2.bitwise_xor(
        cv2.compare(left, right, cv2.CMP_GT), cv2.compare(up, down, cv2.CMP_GT)
    )
    sign = np.bitwise_and(differ, 1, dtype=np.uint8)
    bytes_4 = cv2.merge([gx, gy, sign, np.zeros_like(gx)])  # from the lowest byte up
    return bytes_4.view("<i4")[..., 0]


@lru_cache(maxsize=4)
def _votes(bins: int) -> list[np.ndarray]:
    """Returns what each gradient code adds to each bin, in 1/_UNIT levels, _GROUP bins at a time.

    Each array is uint16 [2·256·256, bins of the group].

    The code of a mirrored gradient differs only in the sign bit. Its bins are reversed.
    """
    gy, gx = np.mgrid[0:256, 0:256]
    magnitude = np.hypot(gx, gy) * _UNIT
    place = np.arctan2(gy, gx) * (bins / np.pi) - 0.5
    low = np.floor(place).astype(int)
    upper = np.rint(magnitude * (place - low))
    lower = np.rint(magnitude) - upper
    votes = np.zeros((2, 256, 256, bins), np.uint16)
    votes[0, gy, gx, low % bins] += lower.astype(np.uint16)
    votes[0, gy, gx, (low + 1) % bins] += upper.astype(np.uint16)
    votes[1] = votes[0, ..., ::-1]
    table = votes.reshape(-1, bins)
    return [table[:, first : first + _GROUP].copy() for first in range(0, bins, _GROUP)]
