"""Checkpoints: torch files that are complete or absent, and the state that makes a resume exact.

A checkpoint is a dict of plain values and tensors (`torch.load(..., weights_only=True)` reads it);
its `model` key is the state dict of the bare model.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mme_core.errors import MMEError, UsageError
from mme_core.weights.run_folder import FOLDER, checkpoints
from train.engine.distributed import interrupt_waits


@interrupt_waits()  # torch would report a Ctrl-C as a failure to write
def save(run: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Writes RUN/checkpoints/step-NNNNNNNN.pt aside, syncs, renames; keeps the last `keep`.

    Those of later steps go: the run was continued from before them, since they are damaged.
    Raises MMEError where it cannot be written; the earlier checkpoints are then as they were.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    aside = path.with_suffix(".tmp")
    try:
        with aside.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        aside.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__ or error
        free = shutil.disk_usage(folder).free
        raise MMEError(
            f"checkpoint {path}: cannot be written ({cause}; {free / 1e9:.2f} GB free on that "
            "disk); the earlier checkpoints are intact: make room and run the same command again"
        ) from error
    paths = checkpoints(run)
    mine = paths.index(path)
    halves = folder.glob("*.tmp")  # of killed runs
    for old in [*paths[:mine], *paths[mine + keep :], *halves]:
        old.unlink()
    return path


def newest(path: Path) -> Path:
    """A run's newest checkpoint; any other path as it is."""
    return next(iter(checkpoints(path)), path)


def load_last(run: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    Damaged ones are passed over with a warning. Raises MMEError where all are damaged: starting
    anew by itself would throw the run away.
    """
    paths = checkpoints(run)
    for path in paths:
        try:
            return read(path)
        except MMEError as error:
            warn(f"{error}; trying the one before")
    if paths:
        raise MMEError(f"{run / FOLDER}: every checkpoint is damaged; choose another out=…")
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU, its checksums verified (torch.load does not)."""
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint, nor a run's folder that holds one")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not agree")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        raise MMEError(f"checkpoint {path}: damaged ({str(error).splitlines()[0]})") from error
    except pickle.UnpicklingError as error:
        raise MMEError(
            f"checkpoint {path}: holds more than tensors and plain values, so it may run code when "
            "read and is refused"
        ) from error


def read_model(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, or in the newest one of a run's folder."""
    state = read(newest(path))
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UsageError(f"{path}: holds no `model`, so it is no checkpoint of `mme pretrain`")
    return state["model"]


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Fills `model`. Raises UsageError naming the first key that does not fit."""
    own = model.state_dict()
    for key in own:
        if key not in weights:
            raise UsageError(f"{source}: is of another model: it has no {key}")
        if own[key].shape != weights[key].shape:
            raise UsageError(
                f"{source}: is of another model: {key} is {list(weights[key].shape)} there and "
                f"{list(own[key].shape)} in this recipe"
            )
    surplus = [key for key in weights if key not in own]
    if surplus:
        raise UsageError(f"{source}: is of another model: this recipe has no {surplus[0]}")
    model.load_state_dict(weights)


def rng_state() -> dict[str, Any]:
    """The random generators of this process, as plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Puts `rng_state` back."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
