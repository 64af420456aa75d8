"""Checkpoints: torch files that are complete or absent.

A checkpoint is a dict of plain values and tensors (`torch.load(..., weights_only=True)` reads it);
its `model` key is the state dict of the bare model.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mme_core.errors import MMEError, UsageError
from mme_core.weights.run_folder import CHECKPOINTS, checkpoints
from train.engine.signals import interrupt_waits


@interrupt_waits()  # torch would report a Ctrl-C as a failure to write
def save(run: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Writes RUN/checkpoints/step-NNNNNNNN.pt to a file aside, syncs and renames it.

    Keeps the last `keep` checkpoints. Removes those of later steps: they are damaged, for the run
    was resumed from an earlier one. Raises MMEError where the file cannot be written; the earlier
    checkpoints are then as they were.
    """
    folder = run / CHECKPOINTS
    path = folder / f"step-{step:08d}.pt"
    aside = path.with_suffix(".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        aside.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__ or error
        free = shutil.disk_usage(run).free
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


def load_last(run: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest undamaged checkpoint, or None where the run has none at all.

    Skips damaged ones with a warning. Raises MMEError where all are damaged: a new start would
    throw the run away.
    """
    paths = checkpoints(run)
    for path in paths:
        try:
            return read(path)
        except MMEError as error:
            warn(f"{error}; trying the one before")
    if paths:
        raise MMEError(f"{run / CHECKPOINTS}: every checkpoint is damaged; choose another out=…")
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Verifies the checksums, which torch.load does not."""
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint, nor a run's folder that holds one")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not agree")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise _damaged(path, error) from error
    except pickle.UnpicklingError as error:
        raise MMEError(
            f"checkpoint {path}: holds more than tensors and plain values, so it may run code when "
            "read and is refused"
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged list of contents names a place before the file
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> MMEError:
    cause = next(iter(str(error).splitlines()), type(error).__name__)
    return MMEError(f"checkpoint {path}: damaged ({cause})")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads all of `weights` into `model`. Raises UsageError naming the first key that differs."""
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


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
