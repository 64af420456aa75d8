"""Descriptors of fixed cells: HOG, HOF and MBH of the 8 × 8 cells around a patch's points.

A store may hold them (`spec.cells`) for each of the L raw frames of a tubelet. The cells stay where
the points start; only `shape` follows the trajectories. Every descriptor of a cell is a sum over
its pixels:

    hog  orientations of the luma's gradient, as `mme_core.extract.hog`: B numbers
    hof  directions of the flow to the next raw frame (Dense Trajectories): a pixel votes its speed
         to the two nearest of 8 directions with centres at 0°, 45°, … (right, down, …), or, where
         it is slower than STILL, votes 1 to the ninth bin: 9 numbers
    mbh  motion boundaries: `hog`'s histogram of the gradient of the flow's x, then of its y: 2·B

A cell array holds int8 codes with a mean and a deviation of each patch and tubelet over its K·L·D
numbers, as `mme_core.targets` codes shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mme_core.spec import TargetSpec
from mme_core.targets import INT8_MAX, Values, dequantise, mean_and_deviation, quantise

DIRECTIONS = 8  # of hof
STILL = 0.4  # canvas pixels a raw frame
MOMENTS = 2  # mean, deviation


def codes_name(cells: str) -> str:
    """Name of the array with the codes int8 [..., K, L, D], in stores and in batches."""
    return f"cell_{cells}"


def moments_name(cells: str) -> str:
    """Name of the array with their moments, float32 [..., 2]."""
    return f"cell_{cells}_moments"


def array_names(cells: tuple[str, ...]) -> list[str]:
    """Names of the arrays of all these descriptors."""
    return [name(one) for one in cells for name in (codes_name, moments_name)]


def bins(cells: str, spec: TargetSpec) -> int:
    """Returns D, the number of sums of a cell in one raw frame."""
    return {"hog": spec.hog_bins, "hof": DIRECTIONS + 1, "mbh": 2 * spec.hog_bins}[cells]


def mirror_runs(cells: str, spec: TargetSpec) -> tuple[int, ...]:
    """Returns the lengths of the runs of bins that a mirror (left and right exchanged) reverses.

    hof  right … left (0° to 180°), then the three between, then the still bin, which stays
    mbh  the mirror negates the flow's x and its gradient's x; orientations have no sign, so the
         bins of both components are reversed
    """
    half = DIRECTIONS // 2 + 1
    return {
        "hog": (spec.hog_bins,),
        "hof": (half, DIRECTIONS - half, 1),
        "mbh": (spec.hog_bins, spec.hog_bins),
    }[cells]


def mirrored(cells: str, spec: TargetSpec) -> list[int]:
    """Returns the bin of a cell that each bin of its mirror image comes from."""
    order: list[int] = []
    for run in mirror_runs(cells, spec):
        order += range(len(order) + run - 1, len(order) - 1, -1)
    return order


def growing(cells: str) -> int:
    """Returns how many of a cell's D sums grow where the image is enlarged: the first ones.

    Cells keep their number of pixels. The speeds of `hof` grow, but its count of still pixels does
    not. The gradient of the flow does not change. HOG changes little, because a larger image is
    smoother, and is left as it is, as `shape` is.
    """
    return DIRECTIONS if cells == "hof" else 0


def encode(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Encodes sums float32 [..., K, L, D]: codes int8 of this shape, moments float32 [..., 2]."""
    centred, mean, deviation = mean_and_deviation(values, (-3, -2, -1))
    moments = np.concatenate([mean[..., 0, 0, :], deviation[..., 0, 0, :]], axis=-1)
    return quantise(centred, deviation, _scale(values.shape)), moments


def encode_all(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Encodes {descriptor: sums} as a store holds them: {name of an array: codes or moments}."""
    arrays = {}
    for name, sums in values.items():
        arrays[codes_name(name)], arrays[moments_name(name)] = encode(sums)
    return arrays


def decode_all(arrays: Mapping[str, Values], names: tuple[str, ...]) -> dict[str, Values]:
    """The reverse of `encode_all`, for those of the descriptors `names` that `arrays` has."""
    return {
        name: decode(arrays[codes_name(name)], arrays[moments_name(name)])
        for name in names
        if codes_name(name) in arrays
    }


def decode(codes: Values, moments: Values) -> Values:
    """Decodes codes [..., K, L, D] and moments [..., 2], arrays or tensors, to float32 sums."""
    mean, deviation = moments[..., None, None, 0:1], moments[..., None, None, 1:2]
    return dequantise(codes, mean, deviation, _scale(codes.shape))


def _scale(shape: tuple[int, ...]) -> float:
    return INT8_MAX / math.sqrt(max(math.prod(shape[-3:]) - 1, 1))
