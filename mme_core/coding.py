"""Moments with as many bits as matter: numbers that compress, exact to a tenth of the step."""

from __future__ import annotations

import numpy as np

from mme_core.spec import TargetSpec
from mme_core.targets import EPSILON, position_scale, shape_scale

_SHARE = 1 / 32  # of the quantiser's step: the error of a mean, and of a deviation at a full code


def round_moments(moments: np.ndarray, spec: TargetSpec) -> np.ndarray:
    """[..., 6] with the low bits of every number cleared, float32.

    A value comes back as z · (sd + ε) + mean, and z is a multiple of the step 1 / scale. So a mean
    may be off by a share of step · (sd + ε), and a deviation, which is multiplied by up to 127
    steps, by that share of its 127th. Rounded to powers of two below these, so that the numbers
    stay what they are called, and zstd finds their low bytes zero.
    """
    rounded = np.empty_like(moments, dtype=np.float32)
    scales = (position_scale(spec), position_scale(spec), shape_scale(spec))
    for (mean, deviation), scale in zip(((0, 2), (1, 3), (4, 5)), scales):
        sd = moments[..., deviation].astype(np.float64)
        grain = _power_of_two((sd + EPSILON) * _SHARE * 2 / scale)
        rounded[..., mean] = np.rint(moments[..., mean] / grain) * grain
        grain = _power_of_two((sd + EPSILON) * _SHARE * 2 / 127)
        rounded[..., deviation] = np.rint(sd / grain) * grain
    return rounded


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """The largest powers of two that are not above the values."""
    return np.exp2(np.floor(np.log2(values)))
