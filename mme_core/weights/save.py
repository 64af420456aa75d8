"""Writes weights to one safetensors file, with the metadata to build the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mme_core.errors import UsageError


def save_weights(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    frames: int,
    image_size: int,
    class_names: list[str] | None = None,
    recipe: dict[str, Any] | None = None,
) -> None:
    """Writes a safetensors file under a temporary name, then renames it.

    Raises UsageError where it cannot be written.
    """
    meta = {
        "frames": frames,
        "image_size": image_size,
        "class_names": class_names,
        "recipe": recipe,
    }
    aside = path.with_name(path.name + ".part")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(contiguous, aside, metadata={"format": "pt", "mme": json.dumps(meta)})
        aside.rename(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing into a UsageError that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter is safetensors' for a full disk
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be written ({reason}); choose another place") from error
