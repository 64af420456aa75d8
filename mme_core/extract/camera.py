"""Camera motion between two frames as a homography (improved Dense Trajectories)."""

from __future__ import annotations

import cv2
import numpy as np

from mme_core.extract.tracks import inside, sample

MIN_MATCHES = 50
MIN_INLIERS = 25
_MAX_CORNERS = 1000
_THRESHOLD = 1.0  # pixels


def homography(
    luma_HW: np.ndarray, flow_HW2: np.ndarray, offset: tuple[int, int]
) -> np.ndarray | None:
    """Homography that moves the background's points from this frame to the next.

    luma_HW uint8 and flow_HW2 float32 cover the region; `offset` is the canvas' (x, y) in it. The
    result, float32 [3, 3], acts on canvas pixels. None where too few corners agree on one.
    """
    corners = cv2.goodFeaturesToTrack(luma_HW, _MAX_CORNERS, qualityLevel=0.001, minDistance=5)
    if corners is None:
        return None
    start_N2 = corners[:, 0]
    end_N2 = start_N2 + sample(flow_HW2, start_N2)
    kept = inside(end_N2, luma_HW.shape)
    if kept.sum() < MIN_MATCHES:
        return None
    matrix, inliers = cv2.findHomography(
        start_N2[kept] - offset, end_N2[kept] - offset, cv2.USAC_MAGSAC, _THRESHOLD
    )
    if matrix is None or inliers.sum() < MIN_INLIERS:
        return None
    return matrix.astype(np.float32)
