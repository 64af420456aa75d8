"""Camera motion between two frames, estimated as a homography (improved Dense Trajectories)."""

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
    """Returns the homography that maps background points of this frame to the next frame.

    luma_HW   uint8, this frame's region (see `mme_core.canvas`)
    flow_HW2  float32, flow of the region to the next frame, pixels
    offset    (x, y) of the canvas in the region

    The result is float32 [3, 3] and acts on canvas pixels. It is None where too few corners agree
    on one homography.
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
