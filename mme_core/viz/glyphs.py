"""Draws HOG as glyphs: one stroke per bin, along the edge, brighter for a stronger bin."""

from __future__ import annotations

import cv2
import numpy as np

from mme_core.spec import TargetSpec

_SHIFT = 4


def draw_hog(
    image: np.ndarray, points: np.ndarray, hog: np.ndarray, spec: TargetSpec, scale: int = 4
) -> np.ndarray:
    """Glyphs at points float [N, 2] (canvas pixels) of histograms float [N, bins].

    The strength is relative to the 98 % quantile of the picture's bins. The picture below
    (uint8 [H, W, 3]) is darkened. Returns uint8 [scale·H, scale·W, 3].
    """
    height, width = image.shape[:2]
    size = (width * scale, height * scale)
    under = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.float32) * 0.35
    strongest = float(np.quantile(hog, 0.98)) if hog.size else 0.0  # no valid point in this tubelet
    strength = np.clip(hog / max(strongest, 1e-6), 0, 1)
    # bin b is centred at (b + ½)·180°/bins of the gradient; the edge is perpendicular to it
    angles = (np.arange(spec.hog_bins) + 0.5) * np.pi / spec.hog_bins + np.pi / 2
    half = spec.hog_cell / 2 * 0.9 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    light = np.zeros(under.shape[:2], np.uint8)
    for point, weights in zip(np.asarray(points, float), strength):
        for bin_number in np.argsort(weights)[-4:]:  # weaker strokes would only blur the glyph
            ends = np.stack([point - half[bin_number], point + half[bin_number]])
            start, end = np.round(((ends + 0.5) * scale - 0.5) * (1 << _SHIFT)).astype(int).tolist()
            ink = int(255 * weights[bin_number])
            if ink > 12:
                cv2.line(light, start, end, ink, max(scale // 4, 1), cv2.LINE_AA, _SHIFT)
    return np.clip(under + light[..., None], 0, 255).astype(np.uint8)
