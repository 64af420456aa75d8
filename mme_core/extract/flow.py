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
