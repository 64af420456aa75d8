"""Converts displacements and HOG to the stored int8 codes, and back.

Position is normalised per patch, tubelet *and axis* over its K·L displacements. Shape is normalised
per patch and tubelet over its K·L·B numbers. Both use the population standard deviation. By
Samuelson's inequality no z-score in a group of N numbers exceeds √(N−1), so int8 with the scale
127 / √(N−1) never clips.

Shapes: `...` is any leading shape, usually [n, hp, wp]. K points, L steps, B HOG bins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mme_core.spec import TargetSpec

if TYPE_CHECKING:  # stage 1 runs without torch
    from torch import Tensor

Values = TypeVar("Values", np.ndarray, "Tensor")

EPSILON = 1e-6  # added to a deviation before dividing by it
MOMENTS = 6  # mean x, mean y, sd x, sd y (canvas pixels), shape mean, shape sd

INT8_MAX = 127
_MOMENTS_ERROR = 1 / 32  # rounding error of the moments, as a share of the quantiser's step


def position_scale(spec: TargetSpec) -> float:
    """Returns the scale of the position codes: code = round(z-score per axis · scale)."""
    return INT8_MAX / math.sqrt(max(spec.points * spec.length - 1, 1))


def shape_scale(spec: TargetSpec) -> float:
    """Returns the scale of the shape codes: code = round(z-score · scale)."""
    return INT8_MAX / math.sqrt(max(spec.points * spec.length * spec.hog_bins - 1, 1))


def normalise(values: Values, axes: tuple[int, ...] = (-3, -2, -1), floor: float = 0.0) -> Values:
    """Returns (values − mean) / (max(deviation, floor) + 1e-6), in the shape of `values`.

    values  float32 array or tensor, such as displacement [..., K, L, 2] or hog [..., K, L, B]
    axes    axes over which the mean and the population deviation are taken. The default takes them
            over all numbers of a patch: the paper's target (Table 7b).
    """
    centred, _, deviation = mean_and_deviation(values, axes)
    return centred / (deviation.clip(min=floor) + EPSILON)


def mean_and_deviation(values: Values, axes: tuple[int, ...]) -> tuple[Values, Values, Values]:
    """Returns (values − mean, mean, population deviation) over `axes`, which keep length 1.

    Takes float32 arrays or tensors. Equal numbers give exactly deviation 0. Arrays are therefore
    summed in float64. Tensors are summed as differences from the first number, because a device
    may not support float64.
    """
    if isinstance(values, np.ndarray):
        mean = values.mean(axes, dtype=np.float64, keepdims=True).astype(np.float32)
        centred = values - mean
        variance = np.square(centred).mean(axes, dtype=np.float64, keepdims=True)
        return centred, mean, np.sqrt(variance).astype(np.float32)
    first = values
    for axis in axes:
        first = first.narrow(axis, 0, 1)
    shifted = values - first
    mean = shifted.mean(axes, keepdim=True)
    centred = shifted - mean
    return centred, first + mean, centred.square().mean(axes, keepdim=True).sqrt()


def encode(
    displacement: np.ndarray, hog: np.ndarray, spec: TargetSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encodes displacement float32 [..., K, L, 2] and hog float32 [..., K, L, B] for the store.

    Returns position int8 [..., K, L, 2], shape int8 [..., K, L, B], moments float32 [..., 6].
    """
    centred_xy, mean_xy, sd_xy = mean_and_deviation(displacement, (-3, -2))
    centred_hog, mean_hog, sd_hog = mean_and_deviation(hog, (-3, -2, -1))
    position = quantise(centred_xy, sd_xy, position_scale(spec))
    shape = quantise(centred_hog, sd_hog, shape_scale(spec))
    moments = np.concatenate(
        [part[..., 0, 0, :] for part in (mean_xy, sd_xy, mean_hog, sd_hog)], axis=-1
    )
    return position, shape, moments


def decode_displacement(position: Values, moments: Values, spec: TargetSpec) -> Values:
    """Decodes codes and moments [..., 6], arrays or tensors: pixels, float32 [..., K, L, 2]."""
    mean, deviation = moments[..., None, None, 0:2], moments[..., None, None, 2:4]
    return dequantise(position, mean, deviation, position_scale(spec))


def decode_hog(shape: Values, moments: Values, spec: TargetSpec) -> Values:
    """Decodes codes and moments [..., 6]: summed gradient magnitudes, float32 [..., K, L, B]."""
    mean, deviation = moments[..., None, None, 4:5], moments[..., None, None, 5:6]
    return dequantise(shape, mean, deviation, shape_scale(spec))


def round_moments(moments: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """Rounds moments [..., 6] to the bits that matter, float32. The zero bits compress well.

    A value is decoded as z · (sd + ε) + mean, where z is a multiple of the step 1 / scale. A mean
    may therefore be off by a share of step · (sd + ε), and a deviation, which is multiplied by up
    to 127 steps, by a 127th of that. Each number is rounded to a multiple of the largest power of
    two below its permitted error.
    """
    rounded = np.empty_like(moments, dtype=np.float32)
    scales = (position_scale(spec), position_scale(spec), shape_scale(spec))
    for (mean, deviation), scale in zip(((0, 2), (1, 3), (4, 5)), scales):
        sd = moments[..., deviation].astype(np.float64)
        grain = _power_of_two((sd + EPSILON) * _MOMENTS_ERROR * 2 / scale)
        rounded[..., mean] = np.rint(moments[..., mean] / grain) * grain
        grain = _power_of_two((sd + EPSILON) * _MOMENTS_ERROR * 2 / INT8_MAX)
        rounded[..., deviation] = np.rint(sd / grain) * grain
    return rounded


def pack_valid(valid: np.ndarray) -> np.ndarray:
    """Packs bool [..., K] into uint8 [...]: bit k says that trajectory k is valid."""
    bits = 1 << np.arange(valid.shape[-1])
    return (valid * bits).sum(-1).astype(np.uint8)


def unpack_valid(bits: np.ndarray, points: int) -> np.ndarray:
    """Unpacks uint8 [...] to bool [..., K], the reverse of `pack_valid`."""
    return (bits[..., None] >> np.arange(points)) & 1 == 1


def quantise(centred: np.ndarray, deviation: np.ndarray, scale: float) -> np.ndarray:
    """Returns the codes int8 of float32 values from which their mean is subtracted."""
    codes = centred * (np.float32(scale) / (deviation + np.float32(EPSILON)))
    # Rounding in a deviation near 0 can carry a code beyond 127, which int8 would turn negative.
    return np.clip(np.rint(codes, out=codes), -INT8_MAX, INT8_MAX, out=codes).astype(np.int8)


def dequantise(codes: Any, mean: Any, deviation: Any, scale: float) -> Any:
    """Turns codes into values. Takes arrays and tensors."""
    return codes * ((deviation + np.float32(EPSILON)) / np.float32(scale)) + mean


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """Returns the largest powers of two that are not above the values."""
    return np.exp2(np.floor(np.log2(values)))
