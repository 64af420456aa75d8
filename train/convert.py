"""`mme convert`: converts a checkpoint to a safetensors file with the names of this package.

    mme convert checkpoint.pth -o weights.safetensors

Reads VideoMAE's and MME's checkpoints (pre-training and fine-tuned, DeepSpeed's too), mmaction2's
VideoMAE, transformers' VideoMAE folders, and this package's own. Decoders are left out. Every
command takes the result as `init=` or `--weights`.
"""

from __future__ import annotations

from pathlib import Path

from mme_core.errors import named
from mme_core.model import build_classifier
from mme_core.parser import CommandParser, disk_path
from mme_core.terminal import plain_lines
from mme_core.weights.load import LoadReport, Weights, clip_arguments, load_weights, read_weights
from mme_core.weights.save import save_weights
from train.engine.folder import check_suffix


def check(weights: Weights) -> LoadReport:
    """Loads the weights into a model of their size; raises UsageError where they do not fit."""
    model = build_classifier(weights.size, weights.num_classes or 1, **clip_arguments(weights))
    return load_weights(model, weights)


def convert(source: Path, target: Path, frames: int = 16, image_size: int = 224) -> str:
    """Converts a checkpoint; returns a few lines that describe it. Raises UsageError."""
    weights = read_weights(source, frames, image_size)
    report = check(weights)
    save_weights(
        target,
        {n: t for n, t in weights.tensors.items() if not n.startswith("decoders.")},
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
    parser = CommandParser("convert", __doc__)
    add = parser.add_argument
    source_help = "checkpoint file, or a transformers folder"
    add("source", metavar="SOURCE", type=Path, help=source_help)
    output_help = "NAME.safetensors"
    add("-o", "--output", metavar="FILE", type=disk_path, required=True, help=output_help)
    frames_help = "frames of a clip, if the file does not say"
    add("--frames", type=int, default=16, metavar="N", help=frames_help)
    size_help = "side of the image in pixels, if the file does not say"
    add("--image-size", type=int, default=224, metavar="N", help=size_help)
    arguments = parser.parse_args(argv)
    check_suffix(arguments.output, ".safetensors")
    with named(frames="--frames", image_size="--image-size"):
        done = convert(arguments.source, arguments.output, arguments.frames, arguments.image_size)
    print(plain_lines(done))
    return 0
