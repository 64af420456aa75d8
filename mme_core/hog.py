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

from mme_core.spec import TargetSpec
from mme_core.tracks import sample

# Magnitudes are counted in whole 1/128 of a grey level: they fit uint16, and sums of whole numbers
# below 2^24 are exact in float32, so neither their order nor a mirror changes the result.
_UNIT = 128


def hog_maps(luma_HW: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """Window sums at all whole positions, for `hog_at`: float32 [H + 2p, W + 2p, bins].

    luma_HW is uint8. Entry (y, x) is the window of c × c pixels, c = `spec.hog_cell`, whose first
    is (y − p, x − p) with p = ⌈c / 2⌉; pixels outside the image count nothing.
    """
    pad = _pad(spec)
    grown = cv2.copyMakeBorder(luma_HW, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    gx = cv2.subtract(grown[1:-1, 2:], grown[1:-1, :-2], dtype=cv2.CV_16S)
    gy = cv2.subtract(grown[2:, 1:-1], grown[:-2, 1:-1], dtype=cv2.CV_16S)
    code = np.zeros(np.add(luma_HW.shape, 2 * pad), np.int32)
    inner = code[pad:-pad, pad:-pad]
    np.abs(gx, out=inner)
    inner *= 512
    inner += np.abs(gy) << 1
    inner += (gx ^ gy) < 0
    votes = np.take(_votes(spec.hog_bins), code, axis=0, mode="clip")  # "clip" skips the range check
    window = (spec.hog_cell, spec.hog_cell)
    return cv2.boxFilter(
        votes, cv2.CV_32F, window, anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT
    )


def hog_at(maps: np.ndarray, points_N2: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """HOG of the windows centred at (x, y) `points_N2` of the image: float32 [N, bins].

    Sums of gradient magnitudes of luma in [0, 1]. A point outside the image reads its border.
    """
    pad = _pad(spec)
    last = np.array([maps.shape[1] - 2 * pad - 1, maps.shape[0] - 2 * pad - 1], np.float32)
    first_pixel = np.clip(points_N2, 0, last) - (spec.hog_cell - 1) / 2
    return sample(maps, first_pixel + pad) * np.float32(1 / (255 * _UNIT))


def _pad(spec: TargetSpec) -> int:
    """Pixels around the image that a window centred in it can reach."""
    return (spec.hog_cell + 1) // 2


@lru_cache(maxsize=4)
def _votes(bins: int) -> np.ndarray:
    """What a gradient adds to each bin: uint16 [256·256·2, bins], in units of 1 / _UNIT.

    Row |gx|·512 + |gy|·2 + (1 where gx and gy differ in sign): a mirrored gradient reads the same
    row but for its last bit, and there the bins are reversed.
    """
    gx, gy = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    magnitude = np.hypot(gx, gy) * _UNIT
    place = np.arctan2(gy, gx) * (bins / np.pi) - 0.5
    low = np.floor(place).astype(int)
    upper = np.rint(magnitude * (place - low))
    lower = np.rint(magnitude) - upper
    votes = np.zeros((256, 256, 2, bins), np.uint16)
    votes[gx, gy, 0, low % bins] += lower.astype(np.uint16)
    votes[gx, gy, 0, (low + 1) % bins] += upper.astype(np.uint16)
    votes[:, :, 1] = votes[:, :, 0, ::-1]
    return votes.reshape(-1, bins)
