"""Dense optical flow between two luma images, by name.

A flow function takes two uint8 images [H, W] and returns float32 [H, W, 2]: (x, y) in pixels, from
the first image to the second.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import cv2
import numpy as np

from mme_core.errors import UsageError

FlowFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _dis(preset: int) -> FlowFunction:
    algorithm = cv2.DISOpticalFlow_create(preset)
    return lambda first, second: algorithm.calc(first, second, None)


def _farneback() -> FlowFunction:
    """With the defaults of OpenCV's CUDA version, which the authors' extraction command runs."""
    parameters = {
        "pyr_scale": 0.5,
        "levels": 5,
        "winsize": 13,
        "iterations": 10,
        "poly_n": 5,
        "poly_sigma": 1.1,
        "flags": 0,
    }
    return lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, **parameters)


def _tvl1() -> FlowFunction:
    algorithm = cv2.optflow.DualTVL1OpticalFlow_create()
    return lambda first, second: algorithm.calc(first, second, None)


def _deepflow() -> FlowFunction:
    algorithm = cv2.optflow.createOptFlow_DeepFlow()
    return lambda first, second: algorithm.calc(first, second, None)


# name: maker of the function; algorithms keep buffers, so each video makes its own
ALGORITHMS: dict[str, Callable[[], FlowFunction]] = {
    "dis-ultrafast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "dis-fast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "dis-medium": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "farneback": _farneback,
    "tvl1": _tvl1,
    "deepflow": _deepflow,
}


def flow_function(name: str) -> FlowFunction:
    """The algorithm `name`: a key of ALGORITHMS, or `package.module:function` for one's own.

    Raises UsageError when there is no such algorithm, module or function.
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
