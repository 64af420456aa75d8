"""Colours of motion vectors: the hue shows the direction, the saturation the length."""

from __future__ import annotations

import numpy as np

from mme_core.errors import UsageError

INVALID = np.array([128, 128, 128], np.uint8)  # grey: no trajectory

# The hues of the Middlebury optical-flow benchmark (Baker et al., IJCV 2011), clockwise on the
# screen from "right", and the share of the circle between each and the next. The shares differ
# because perceived hue changes faster between red and yellow than between yellow and green.
_HUES = np.array(
    [[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]], float
)
_SHARES = np.array([15, 6, 4, 11, 13, 6], float)


def speed_limit(vectors: np.ndarray, quantile: float = 0.95, least: float = 0.5) -> float:
    """Returns the length to draw in full colour: a quantile, at least `least`.

    A quantile keeps a single outlier from making all others pale; `least` keeps noise pale.
    vectors  float [..., 2]; those with NaN are left out
    """
    lengths = np.linalg.norm(vectors, axis=-1)
    lengths = lengths[np.isfinite(lengths)]
    if not lengths.size:
        return least
    return max(float(np.quantile(lengths, quantile)), least)


def motion_colour(vectors: np.ndarray, limit: float) -> np.ndarray:
    """Returns the Middlebury colours, RGB uint8 [..., 3], of vectors float [..., 2] (x, y down).

    No motion is white. A length of `limit` or more has the full hue. A vector with NaN is grey.
    """
    if limit <= 0:
        raise UsageError(f"limit={limit}: the length of a full colour must be above 0")
    known = np.isfinite(vectors).all(-1)
    vectors = np.where(known[..., None], vectors, 0)
    turn = np.arctan2(vectors[..., 1], vectors[..., 0]) / (2 * np.pi) % 1
    stops = np.concatenate([[0], np.cumsum(_SHARES)]) / _SHARES.sum()
    hues = np.concatenate([_HUES, _HUES[:1]])
    hue = np.stack([np.interp(turn, stops, hues[:, channel]) for channel in range(3)], axis=-1)
    strength = np.minimum(np.linalg.norm(vectors, axis=-1) / limit, 1)[..., None]
    colour = 255 - strength * (255 - hue)
    return np.where(known[..., None], colour.round(), INVALID).astype(np.uint8)


def wheel(size: int, background: int = 255) -> np.ndarray:
    """Draws the legend, RGB uint8 [size, size, 3]: white in the middle, full hues at the rim."""
    axis = np.linspace(-1, 1, size)
    vectors = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.linalg.norm(vectors, axis=-1) <= 1
    return np.where(inside[..., None], motion_colour(vectors, 1.0), background).astype(np.uint8)
