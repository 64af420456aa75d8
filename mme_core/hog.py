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

# Magnitudes are counted in whole 1/512 of a grey level: sums of whole numbers below 2^24 are exact
# in float32, so the result depends neither on their order nor on a mirror.
_UNIT = 512


def hog_maps(luma_HW: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """Window sums at all whole positions, for `hog_at`: float32 [H + c + 1, W + c + 1, bins].

    luma_HW is uint8; c is `spec.hog_cell`. Entry (y, x) is the window whose first pixel is
    (y − c, x − c); pixels outside the image count nothing.
    """
    grown = cv2.copyMakeBorder(luma_HW, 1, 1, 1, 1, cv2.BORDER_REPLICATE).astype(np.int16)
    gx = grown[1:-1, 2:] - grown[1:-1, :-2]
    gy = grown[2:, 1:-1] - grown[:-2, 1:-1]
    code = np.abs(gx).astype(np.int32) * 512 + np.abs(gy) * 2 + ((gx ^ gy) < 0)
    cell = spec.hog_cell
    votes = np.zeros((*np.add(luma_HW.shape, 2 * cell), spec.hog_bins), np.float32)
    votes[cell:-cell, cell:-cell] = _votes(spec.hog_bins)[code]
    height, width = np.add(luma_HW.shape, cell + 1)
    sums = [
        cv2.boxFilter(
            np.ascontiguousarray(votes[..., b]), -1, (cell, cell), anchor=(0, 0), normalize=False
        )
        for b in range(spec.hog_bins)
    ]
    return np.stack(sums, axis=-1)[:height, :width]


def hog_at(maps: np.ndarray, points_N2: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """HOG of the windows centred at (x, y) `points_N2` of the image: float32 [N, bins].

    Sums of gradient magnitudes of luma in [0, 1]. A point outside the image reads its border.
    """
    cell = spec.hog_cell
    height, width = maps.shape[0] - cell - 1, maps.shape[1] - cell - 1
    centres = np.clip(points_N2, 0, np.array([width - 1, height - 1], np.float32))
    return sample(maps, centres + (cell - (cell - 1) / 2)) * np.float32(1 / (255 * _UNIT))


@lru_cache(maxsize=4)
def _votes(bins: int) -> np.ndarray:
    """What a gradient adds to each bin: float32 [256·256·2, bins], whole numbers.

    Row |gx|·512 + |gy|·2 + (1 where gx and gy differ in sign): a mirrored gradient reads the same
    row but for its last bit, whose bins are reversed.
    """
    gy, gx = np.meshgrid(np.arange(256), np.arange(256))
    magnitude = np.hypot(gx, gy) * _UNIT
    place = np.arctan2(gy, gx) * (bins / np.pi) - 0.5
    low = np.floor(place).astype(int)
    upper = np.rint(magnitude * (place - low))
    lower = np.rint(magnitude) - upper
    votes = np.zeros((256, 256, 2, bins), np.float32)
    x, y = gx, gy
    np.add.at(votes, (x, y, 0, low % bins), lower)
    np.add.at(votes, (x, y, 0, (low + 1) % bins), upper)
    votes[:, :, 1] = votes[:, :, 0, ::-1]
    return votes.reshape(-1, bins)
