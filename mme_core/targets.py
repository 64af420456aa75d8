"""From displacements and HOG to the stored int8 codes, and back.

Position is normalised per patch, tubelet *and axis* over its K·L displacements, shape per patch
and tubelet over its K·L·9 numbers, with the population deviation. By Samuelson's inequality no
z-score in a group of N numbers exceeds √(N−1), so int8 with the scale 127 / √(N−1) never clips.

Shapes: `...` is any leading shape, usually [n, hp, wp]. K points, L steps, B HOG bins.
"""

from __future__ import annotations

import math

import numpy as np

from mme_core.spec import TargetSpec

EPSILON = 1e-6  # added to a deviation before dividing by it
MOMENTS = 6  # mean x, mean y, sd x, sd y (canvas pixels), shape mean, shape sd

_INT8_MAX = 127


def position_scale(spec: TargetSpec) -> float:
    """Codes a unit of the per-axis z-score: position code = round(z · scale)."""
    return _INT8_MAX / math.sqrt(max(spec.points * spec.length - 1, 1))


def shape_scale(spec: TargetSpec) -> float:
    """Codes a unit of the shape's z-score."""
    return _INT8_MAX / math.sqrt(max(spec.points * spec.length * spec.hog_bins - 1, 1))


def _centre(values: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """values − mean, and mean and population deviation over `axes` (kept as 1): all float32.

    Summed in float64, so that equal numbers have exactly their own mean and no deviation.
    """
    mean = values.mean(axes, dtype=np.float64, keepdims=True).astype(np.float32)
    centred = values - mean
    variance = np.square(centred).mean(axes, dtype=np.float64, keepdims=True)
    return centred, mean, np.sqrt(variance).astype(np.float32)


def normalise(values: np.ndarray) -> np.ndarray:
    """(values − mean) / (deviation + 1e-6) of each patch, float32: the paper's target (Table 7b).

    values: displacement [..., K, L, 2] or hog [..., K, L, B]; one mean and deviation over all the
    numbers of a patch.
    """
    centred, _, deviation = _centre(values, (-3, -2, -1))
    return centred / (deviation + np.float32(EPSILON))


def encode(
    displacement: np.ndarray, hog: np.ndarray, spec: TargetSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """displacement float32 [..., K, L, 2] and hog float32 [..., K, L, B] as stored.

    Returns position int8 [..., K, L, 2], shape int8 [..., K, L, B], moments float32 [..., 6].
    """
    centred_xy, mean_xy, sd_xy = _centre(displacement, (-3, -2))
    centred_hog, mean_hog, sd_hog = _centre(hog, (-3, -2, -1))
    position = _quantise(centred_xy, sd_xy, position_scale(spec))
    shape = _quantise(centred_hog, sd_hog, shape_scale(spec))
    moments = np.concatenate(
        [part[..., 0, 0, :] for part in (mean_xy, sd_xy, mean_hog, sd_hog)], axis=-1
    )
    return position, shape, moments


def decode_displacement(position: np.ndarray, moments: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """Canvas pixels, float32 [..., K, L, 2], from codes and moments [..., 6]."""
    mean, deviation = moments[..., None, None, 0:2], moments[..., None, None, 2:4]
    return _dequantise(position, mean, deviation, position_scale(spec))


def decode_hog(shape: np.ndarray, moments: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """Summed gradient magnitudes, float32 [..., K, L, B], from codes and moments [..., 6]."""
    mean, deviation = moments[..., None, None, 4:5], moments[..., None, None, 5:6]
    return _dequantise(shape, mean, deviation, shape_scale(spec))


def pack_valid(valid: np.ndarray) -> np.ndarray:
    """bool [..., K] -> uint8 [...]: bit k says that trajectory k is valid."""
    bits = 1 << np.arange(valid.shape[-1])
    return (valid * bits).sum(-1).astype(np.uint8)


def unpack_valid(bits: np.ndarray, points: int) -> np.ndarray:
    """uint8 [...] -> bool [..., K]."""
    return (bits[..., None] >> np.arange(points)) & 1 == 1


def _quantise(centred: np.ndarray, deviation: np.ndarray, scale: float) -> np.ndarray:
    codes = centred * (np.float32(scale) / (deviation + np.float32(EPSILON)))
    return np.rint(codes, out=codes).astype(np.int8)


def _dequantise(
    codes: np.ndarray, mean: np.ndarray, deviation: np.ndarray, scale: float
) -> np.ndarray:
    return codes * ((deviation + np.float32(EPSILON)) / np.float32(scale)) + mean
