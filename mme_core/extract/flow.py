"""Algorithms for dense optical flow between two luma images.

A flow function takes two uint8 images [H, W]. It returns the motion (x, y) of every pixel from the
first image to the second, in pixels: float32 [H, W, 2].
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import cv2
import numpy as np

from mme_core.errors import UsageError

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


def flow_function(name: str) -> FlowFunction:
    """Returns the flow function of a key of ALGORITHMS, or your own `package.module:function`.

    Raises UsageError where the algorithm, module or function does not exist. The returned function
    raises UsageError where your own function returns another shape or dtype.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]()
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(
            f"spec.flow={name} is unknown: use one of {', '.join(ALGORITHMS)}, "
            "or package.module:function"
        )
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"spec.flow={name} cannot be imported: {error}") from error
    if not callable(function):
        raise UsageError(f"spec.flow={name} is not a function")
    return lambda first, second: _checked(name, first, function(first, second))


def _checked(name: str, image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    expected = (*image.shape, 2)
    if flow.shape != expected or flow.dtype != np.float32:
        raise UsageError(
            f"spec.flow={name} returned {flow.dtype} {flow.shape}, not float32 {expected}"
        )
    return flow
