"""Algorithms for dense optical flow.

A flow function takes two uint8 luma images [H, W]. It returns the motion (x, y) of every pixel from
the first image to the second, in pixels: float32 [H, W, 2]. Networks take many colour frames at
once instead: see `FlowOfFrames`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mme_core.errors import UsageError, VideoError
from mme_core.extract.plugin import as_array, check_array, load_plugin, takes_one_argument

FlowFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _dense(algorithm: cv2.DenseOpticalFlow) -> FlowFunction:
    # OpenCV allocates the output where it is None, but its stubs demand an array.
    return lambda first, second: algorithm.calc(first, second, None)  # type: ignore[call-overload]


def _dis(preset: int) -> FlowFunction:
    return _dense(cv2.DISOpticalFlow.create(preset))


def _dis_tuned(patch: int, stride: int, refinements: int) -> FlowFunction:
    """DIS at half the resolution, with parameters that `benchmarks/flow_accuracy.py` compares.

    Smoothed images shrink without aliasing, which lowers the error most. More steps of gradient
    descent make patches run away where there is little texture.

    patch        side of a patch, pixels of the half-size image
    stride       pixels of the half-size image from one patch to the next
    refinements  variational iterations at each scale
    """
    algorithm = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    algorithm.setPatchSize(patch)
    algorithm.setPatchStride(stride)
    algorithm.setGradientDescentIterations(2)
    algorithm.setVariationalRefinementIterations(refinements)
    flow = _dense(algorithm)
    return lambda first, second: flow(_smoothed(first), _smoothed(second))


def _smoothed(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (5, 5), 0)  # binomial: whole numbers, the same on any machine


def _farneback() -> FlowFunction:
    """Farnebäck's flow with the parameters of the authors' extraction command.

    That command uses the defaults of OpenCV's CUDA version.
    """
    parameters = {
        "pyr_scale": 0.5,
        "levels": 5,
        "winsize": 13,
        "iterations": 10,
        "poly_n": 5,
        "poly_sigma": 1.1,
        "flags": 0,
    }
    # The stubs demand an output array here, too.
    return lambda first, second: cv2.calcOpticalFlowFarneback(  # type: ignore[call-overload]
        first, second, None, **parameters
    )


# name: function that makes the flow function. Algorithms keep buffers, so each video has its own.
ALGORITHMS: dict[str, Callable[[], FlowFunction]] = {
    "dis-ultrafast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "dis-fast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "dis-medium": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "dis-tuned": lambda: _dis_tuned(patch=5, stride=3, refinements=4),
    "dis-tuned-fast": lambda: _dis_tuned(patch=8, stride=6, refinements=2),
    "farneback": _farneback,
    "tvl1": lambda: _dense(cv2.optflow.DualTVL1OpticalFlow.create()),
    "deepflow": lambda: _dense(cv2.optflow.createOptFlow_DeepFlow()),
}
# The smallest side of an image, in pixels. DIS shrinks the image, and its patches must still fit.
# In a smaller image OpenCV raises an error or ends the process.
_SMALLEST = {
    "dis-ultrafast": 32,
    "dis-fast": 32,
    "dis-medium": 16,
    "dis-tuned": 12,
    "dis-tuned-fast": 16,
}


RAFT = ("raft-small", "raft-large")  # these take all frames of a run at once, and weights


@dataclass(frozen=True)
class FlowOfFrames:
    """Flow of all pairs of consecutive frames at once.

    function  frames, RGB uint8 [T, 3, H, W] -> flow, float32 [T − 1, 2, H, W], array or tensor
    """

    name: str
    function: Callable[[np.ndarray], Any]

    def __call__(self, frames_TCHW: np.ndarray) -> list[np.ndarray]:
        """Returns the flow of each pair, float32 [H, W, 2].

        Raises UsageError where the function returns another shape or dtype, and VideoError where it
        returns numbers that are not finite.
        """
        count, _, height, width = frames_TCHW.shape
        shape = (count - 1, 2, height, width)
        flow = self.function(frames_TCHW)
        flow = _checked(self.name, flow, shape)
        return list(np.ascontiguousarray(flow.transpose(0, 2, 3, 1)))


def flow_function(name: str, weights: str = "") -> FlowFunction | FlowOfFrames:
    """Returns the flow function of a key of ALGORITHMS or RAFT, or `package.module:function`.

    weights  file with RAFT's weights

    Your own function takes frames if exactly one argument must be given, otherwise two images.
    Raises UsageError where the algorithm, the module, the function or the weights do not exist. The
    returned function raises UsageError where your own function returns another shape or dtype, and
    VideoError where it returns numbers that are not finite.
    """
    check_flow(name, weights)
    if name in ALGORITHMS:
        return ALGORITHMS[name]()
    if name in RAFT:
        from mme_core.extract.raft import raft

        return FlowOfFrames(name, raft(name, weights))
    function = load_plugin("flow", name)
    if takes_one_argument(function):
        return FlowOfFrames(name, function)
    return lambda first, second: _checked(name, function(first, second), (*first.shape, 2))


def check_flow(name: str, weights: str) -> None:
    """Raises UsageError for an unknown name, and for weights that are missing or without use."""
    if name not in ALGORITHMS and name not in RAFT and ":" not in name:
        raise UsageError(
            f"spec.flow={name} is unknown: use one of {', '.join((*ALGORITHMS, *RAFT))}, "
            "or package.module:function"
        )
    if name in RAFT and not weights:
        raise UsageError(
            f"spec.flow={name} needs its weights: set spec.flow_weights=FILE, a state dict of "
            f"torchvision's {name.replace('-', '_')}"
        )
    if weights and name not in RAFT:
        raise UsageError(f"spec.flow_weights belongs to {' and '.join(RAFT)}, not to {name}")


def check_side(name: str, short_side: int) -> None:
    """Raises UsageError for frames that are too small for the flow `name`.

    The flow is that of the region of `mme_core.canvas`. A small canvas in a larger frame has a
    margin, so only a small short side makes the region too small.
    """
    smallest = _SMALLEST.get(name, 0)
    if short_side < smallest:
        raise UsageError(
            f"spec.short_side={short_side} must be at least {smallest} for spec.flow={name}: use a "
            "larger one, or spec.flow=farneback"
        )


def _checked(name: str, flow: Any, shape: tuple[int, ...]) -> np.ndarray:
    flow = check_array(f"spec.flow={name}", as_array(flow), shape, np.float32)
    if not np.isfinite(flow).all():
        raise VideoError(f"spec.flow={name} returned numbers that are not finite")
    return flow
