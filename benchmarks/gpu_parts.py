"""What the cases of `benchmarks/gpu_train.py` share: their result, batches of noise, helpers."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mme_core.masking import make_mask
from mme_core.spec import TargetSpec
from mme_core.targets import MOMENTS

STREAMED = ["data.resident=false"]  # later words of a case override it


@dataclass(frozen=True)
class Result:
    """One row of the table; None: not measured in this case."""

    case: str
    clips_per_s: float
    step_ms: float
    idle: float | None = None  # share of time
    host_ms: float | None = None  # for a step
    waited: float | None = None  # share of time
    mfu: float | None = None
    memory_gb: float | None = None
    start_s: float | None = None  # to the end of the first step
    loss: float | None = None
    waits: tuple[str, ...] = ()  # lines at which the host waits for the device


def noise_batch(args: argparse.Namespace, batch: int, device: torch.device) -> dict[str, Tensor]:
    """Noise in the form that the loader delivers, on the device."""
    spec = TargetSpec()
    side, n = args.image_size // spec.patch, args.frames // 2
    tokens = (batch, n, side, side)
    track = (*tokens, spec.points, spec.length)
    rng = np.random.default_rng(0)
    masks = [make_mask("tube", tokens[1:], 0.7, rng).ravel() for _ in range(batch)]
    pixels = (batch, args.frames, args.image_size, args.image_size, 3)
    made = {
        "frames": torch.randint(0, 256, pixels, dtype=torch.uint8),
        "position": torch.randint(-127, 128, (*track, 2), dtype=torch.int8),
        "shape": torch.randint(-127, 128, (*track, spec.hog_bins), dtype=torch.int8),
        "moments": torch.rand(*tokens, MOMENTS),
        "valid": torch.full(tokens, 2**spec.points - 1, dtype=torch.uint8),
        "flip": torch.rand(batch) < 0.5,
        "mask": torch.from_numpy(np.stack(masks)),
    }
    return {name: value.to(device) for name, value in made.items()}


def waits_of(take: Callable[[], int]) -> tuple[str, ...]:
    """Lines of Python at which a step waits for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        take()
        torch.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "called a synchronizing" in str(w.message)]
    return tuple(sorted({f"{Path(w.filename).name}:{w.lineno}" for w in found}))
