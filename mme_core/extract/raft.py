"""RAFT (Teed and Deng, ECCV 2020) from torchvision, with weights from a file."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mme_core.errors import UsageError

if TYPE_CHECKING:  # stage 1 runs without torch
    import torch

_MULTIPLE = 8  # RAFT's features have an eighth of the image's size,
_LEAST = 128  # and its pyramid needs 16 of them on each side


def raft(name: str, weights: str) -> Callable[[np.ndarray], torch.Tensor]:
    """Returns a function from frames, RGB uint8 [T, 3, H, W], to flow, float32 [T − 1, 2, H, W].

    name     raft-small or raft-large
    weights  file with the state dict of torchvision's model

    It runs on a GPU where torch sees one. Raises UsageError where torch or torchvision is missing,
    or the file does not hold this model's weights.
    """
    if not Path(weights).is_file():
        raise UsageError(f"spec.flow_weights={weights}: no such file")
    try:
        import torch
        from torchvision.models import optical_flow
    except ImportError as error:
        raise UsageError(
            f"spec.flow={name} needs torch and torchvision ({error}): pip install torch torchvision"
        ) from error
    build = {"raft-small": optical_flow.raft_small, "raft-large": optical_flow.raft_large}[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _load_model(name, build, weights, device)

    @torch.inference_mode()
    def flow(frames_TCHW: np.ndarray) -> torch.Tensor:
        height, width = frames_TCHW.shape[2:]
        frames = torch.from_numpy(_padded(frames_TCHW)).to(device).float() / 127.5 - 1
        return model(frames[:-1], frames[1:])[-1][..., :height, :width]

    return flow


@functools.lru_cache(maxsize=1)  # one model serves all videos of a process
def _load_model(
    name: str, build: Callable[..., torch.nn.Module], weights: str, device: torch.device
) -> torch.nn.Module:
    import torch

    model = build(weights=None, progress=False)
    try:
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"spec.flow_weights={weights} does not hold the weights of torchvision's {name}: "
            f"{reason}"
        ) from error
    return model.to(device).eval()


def _padded(frames_TCHW: np.ndarray) -> np.ndarray:
    """Repeats the last row and column until RAFT can take the size."""
    more = [max(_LEAST, -(-side // _MULTIPLE) * _MULTIPLE) - side for side in frames_TCHW.shape[2:]]
    pads: Any = [(0, 0), (0, 0), (0, more[0]), (0, more[1])]
    return np.pad(frames_TCHW, pads, mode="edge")
