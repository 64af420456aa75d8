"""`mme convert`: official checkpoints to one safetensors file under the names of this package.

    mme convert checkpoint.pth -o weights.safetensors

Reads VideoMAE's and MME's checkpoints (pre-training and fine-tuned, DeepSpeed's too), transformers'
VideoMAE folders, and this package's own. The result serves as `init=` and `--weights` everywhere.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mme_core.errors import UsageError
from mme_core.model import build_classifier
from mme_core.weights.load import LoadReport, Weights, clip_arguments, load_weights, read_weights


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a disk's refusals into a UsageError that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter is safetensors' for a full disk
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be written ({reason}); choose another place") from error


def check_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise UsageError(f"-o {path}: the name must end in {suffix}")


def save_weights(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    frames: int,
    image_size: int,
    class_names: list[str] | None = None,
    recipe: dict[str, Any] | None = None,
) -> None:
    """One safetensors file with what is needed to build the model; written aside, then renamed."""
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


def check(weights: Weights) -> LoadReport:
    """Loads the weights into a model of their size; raises UsageError where they do not fit."""
    model = build_classifier(weights.size, weights.num_classes or 1, **clip_arguments(weights))
    return load_weights(model, weights)


def convert(source: Path, target: Path, frames: int = 16, image_size: int = 224) -> str:
    """Converts and says in a few lines what was found."""
    weights = read_weights(source, frames, image_size)
    report = check(weights)
    save_weights(
        target,
        weights.tensors,
        frames=weights.frames,
        image_size=weights.image_size,
        class_names=weights.class_names,
        recipe=weights.recipe,
    )
    head = f"head of {weights.num_classes} classes" if weights.num_classes else "no head"
    return (
        f"{target}: size {weights.size}, {weights.depth} blocks, {weights.frames} frames of "
        f"{weights.image_size} pixels, {head}\nin a classifier: {report}"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mme convert", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=Path, help="checkpoint file, or a transformers folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="FILE.safetensors")
    parser.add_argument("--frames", type=int, default=16, help="of the clip, if not in the file")
    parser.add_argument("--image-size", type=int, default=224, help="pixels, if not in the file")
    arguments = parser.parse_args(argv)
    check_suffix(arguments.output, ".safetensors")
    print(convert(arguments.source, arguments.output, arguments.frames, arguments.image_size))
    return 0
