"""Histograms of oriented gradients in a window around any sub-pixel position.

Central differences of luma, magnitude-weighted, unsigned orientation in 9 bins with centres at
10°, 30°, … 170°, linear between the two nearest bins, cyclic. A window at a fractional position
counts its border pixels by the part of them it covers, which is a bilinear reading of the sums at
the four whole positions around it.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from mme_core.extract.tracks import sample
from mme_core.spec import TargetSpec

# Magnitudes are counted in whole 1/128 of a grey level: they fit uint16, and sums of whole numbers
# below 2^24 are exact in float32, so neither their order nor a mirror changes the result.
_UNIT = 128


class HogField:
    """HOG of any window of an image, and then of the next image of the same shape.

    The memory is kept from image to image: taking and returning megabytes costs as much as the
    sums themselves.
    """

    def __init__(self, shape: tuple[int, int], spec: TargetSpec) -> None:
        """For images of (height, width)."""
        self._spec = spec
        self._pad = (spec.hog_cell + 1) // 2  # pixels around the image that a window can reach
        grown = (shape[0] + 2 * self._pad, shape[1] + 2 * self._pad, spec.hog_bins)
        self._votes = np.empty(grown, np.uint16)
        self._sums = np.empty(grown, np.float32)  # of the window that starts at each pixel
        self._last = np.array([shape[1] - 1, shape[0] - 1], np.float32)

    def load(self, luma_HW: np.ndarray) -> None:
        """Takes the uint8 image; pixels outside of it count nothing."""
        codes = _gradient_codes(luma_HW, self._pad).astype(
            np.intp
        )  # as numpy gathers, or it copies
        # "clip" never clips here: it lets numpy write to `out` without another copy
        np.take(_votes(self._spec.hog_bins), codes, axis=0, out=self._votes, mode="clip")
        cv2.boxFilter(
            self._votes,
            cv2.CV_32F,
            (self._spec.hog_cell, self._spec.hog_cell),
            dst=self._sums,
            anchor=(0, 0),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )

    def at(self, points_N2: np.ndarray) -> np.ndarray:
        """HOG of the windows centred at (x, y) `points_N2` of the image: float32 [N, bins].

        Sums of gradient magnitudes of luma in [0, 1]. A point outside the image reads its border.
        """
        first_pixel = np.clip(points_N2, 0, self._last) - (self._spec.hog_cell - 1) / 2
        return sample(self._sums, first_pixel + self._pad) * np.float32(1 / (255 * _UNIT))


def _gradient_codes(luma_HW: np.ndarray, pad: int) -> np.ndarray:
    """Rows of `_votes` for the image grown by `pad` on each side: int32 [H + 2 pad, W + 2 pad].

    A code is |gx| + 256·|gy| + 65536·(1 where they differ in sign). Putting it together byte by
    byte is several times cheaper than arithmetic.
    """
    border = pad + 1
    image = cv2.copyMakeBorder(luma_HW, border, border, border, border, cv2.BORDER_REPLICATE)
    left, right, up, down = image[1:-1, :-2], image[1:-1, 2:], image[:-2, 1:-1], image[2:, 1:-1]
    gx, gy = cv2.absdiff(left, right), cv2.absdiff(up, down)
    gx[:pad] = gx[-pad:] = 0  # the grown part votes for nothing; replicated
    gy[:, :pad] = gy[:, -pad:] = 0  # pixels make the other two borders 0 already
    differ = cv2.compare(left, right, cv2.CMP_GT) ^ cv2.compare(up, down, cv2.CMP_GT)
    bytes_4 = cv2.merge([gx, gy, differ & 1, np.zeros_like(gx)])  # from the lowest byte up
    return bytes_4.view("<i4")[..., 0]


@lru_cache(maxsize=4)
def _votes(bins: int) -> np.ndarray:
    """What a gradient adds to each bin: uint16 [2·256·256, bins], in units of 1 / _UNIT.

    A mirrored gradient has the same code but for the sign's bit, and there the bins are reversed.
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
    return votes.reshape(-1, bins)
