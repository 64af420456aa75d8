"""Writes weights to one safetensors file, or to a folder in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mme_core.errors import UsageError
from mme_core.spec import TUBELET
from mme_core.store.outside import check_outside
from mme_core.transformer import SIZES
from mme_core.weights.files import MARK, read_json, written_here

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


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
    known = {
        "frames": frames,
        "image_size": image_size,
        "class_names": class_names,
        "recipe": recipe,
    }
    aside = path.with_name(path.name + ".part")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(contiguous, aside, metadata=metadata(known))
        aside.rename(path)


def metadata(known: dict[str, Any]) -> dict[str, str]:
    """The metadata of a safetensors file: its format, and what is known of the weights."""
    return {"format": "pt", MARK: json.dumps(known)}


def recipe_of_clips(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recipe that says how clips were drawn. It names no paths."""
    data = recipe.get("data", {})
    kept = {key: data[key] for key in ("sampling", "stride") if data.get(key) is not None}
    return {"data": kept} if kept else {}


def save_folder(
    folder: Path,
    tensors: dict[str, Tensor],
    *,
    frames: int,
    image_size: int,
    recipe: dict[str, Any],
) -> None:
    """Writes an encoder's tensors (encoder.*, fc_norm.*) and its config.json into a folder.

    Raises UsageError where they cannot be written, or would replace another model.
    """
    architecture = "VideoEncoder"
    check_replaceable(folder, architecture)
    embedding = tensors["encoder.patch_embed.proj.weight"]
    width = embedding.shape[0]
    config = {
        "model_type": "mme_encoder",
        "architectures": [architecture],
        "image_size": image_size,
        "num_frames": frames,
        "patch_size": embedding.shape[-1],
        "tubelet_size": TUBELET,
        "hidden_size": width,
        "num_hidden_layers": len({n.split(".")[2] for n in tensors if "encoder.blocks." in n}),
        "num_attention_heads": next(heads for w, _, heads in SIZES.values() if w == width),
    }
    save_weights(folder / MODEL, tensors, frames=frames, image_size=image_size, recipe=recipe)
    with writing(folder):
        write_json(folder / CONFIG, config)


def check_replaceable(folder: Path, architecture: str) -> None:
    """Raises UsageError where an export must not write into a folder.

    The folder lies in a store, or holds weights that no export of this architecture wrote.
    """
    check_outside(folder, "-o ")
    if not (folder / MODEL).exists():
        return
    there = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    same = there.get("architectures", [architecture]) == [architecture]
    if not (same and written_here(folder / MODEL)):
        raise UsageError(
            f"{folder / MODEL} is another model and would be lost; choose another folder"
        )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes an indented JSON file."""
    path.write_text(json.dumps(values, indent=2) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing into a UsageError that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter is safetensors' for a full disk
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be written ({reason}); choose another place") from error
