"""A short representation of dataclasses that hold arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def listing(instance: Any) -> str:
    """Such as `Window(hog=float32 [8, 14, 14, 4, 6, 9], …)`: type and shape in place of numbers.

    To be the `__repr__` of a dataclass, which else prints pages of numbers.
    """
    fields = ((item.name, getattr(instance, item.name)) for item in dataclasses.fields(instance))
    return f"{type(instance).__name__}({', '.join(f'{name}={_short(v)}' for name, v in fields)})"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {_short(one)}' for name, one in value.items())}}}"
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return f"{len(value)} × bytes"
    return repr(value)
