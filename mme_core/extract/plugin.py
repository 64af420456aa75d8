"""Functions of the user that a specification names, as `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from mme_core.errors import UsageError


def load_plugin(field: str, name: str) -> Callable[..., Any]:
    """Imports the function that `field`, a field of the specification, names.

    Raises UsageError for a name of another form, and where the module or the function does not
    exist.
    """
    module_name, _, attribute = name.partition(":")
    if not all((*module_name.split("."), attribute)):
        raise UsageError(f"spec.{field}={name} must be package.module:function")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"spec.{field}={name} cannot be imported: {error}; the module must be installed, or a "
            "file of the current folder"
        ) from error
    if not callable(function):
        raise UsageError(f"spec.{field}={name} is not a function")
    return function


def takes_one_argument(function: Callable[..., Any]) -> bool:
    """Whether exactly one argument must be given; parameters with a default do not count."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions that are written in C do not say
        return False
    named_rest = inspect.Parameter.VAR_KEYWORD
    needed = [one for one in parameters if one.default is one.empty and one.kind != named_rest]
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.kind in named for one in needed] == [True]


def as_array(value: Any) -> Any:
    """Turns a torch tensor on any device into an array, float32 if it holds fractions.

    Returns anything else as it is.
    """
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def check_array(what: str, value: Any, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Returns `value` if it is an array of this shape and dtype. Raises UsageError otherwise."""
    if not isinstance(value, np.ndarray):
        raise UsageError(f"{what} returned {type(value).__name__}, not an array or a tensor")
    if value.shape != shape or value.dtype != dtype:
        raise UsageError(
            f"{what} returned {value.dtype} {value.shape}, not {np.dtype(dtype)} {shape}"
        )
    return value
