"""The model card: a README.md that goes beside exported weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mme_core.weights.load import Weights

_LOADING = {
    "videomae-hf": """from transformers import {architecture}, VideoMAEImageProcessor

processor = VideoMAEImageProcessor.from_pretrained("{folder}")
model = {architecture}.from_pretrained("{folder}")""",
    "encoder": """from mme_core import load_encoder

encoder = load_encoder("{folder}")
feature = encoder.features(frames)  # uint8 [T, H, W, 3] -> float32 [width]""",
}


def model_card(
    weights: Weights, format: str, folder: str, measured: Mapping[str, float | int]
) -> str:
    """Returns the card as Markdown with the metadata that the Hugging Face hub reads.

    format    "videomae-hf" or "encoder": which code loads the folder
    folder    name of the folder
    measured  numbers measured on held-out videos, by name; {} where none are known
    Of the recipe's store only the name is written, not the path to it.
    """
    classes = weights.class_names or []
    classifier = format == "videomae-hf" and weights.num_classes is not None
    architecture = "VideoMAEForVideoClassification" if classifier else "VideoMAEModel"
    task = "video-classification" if classifier else "feature-extraction"
    loading = _LOADING[format].format(folder=folder, architecture=architecture)
    parts = [
        f"---\nlibrary_name: {'transformers' if format == 'videomae-hf' else 'mme'}\n"
        f"pipeline_tag: {task}\ntags: [video, masked-motion-encoding]\n---",
        f"# {folder}",
        f"A {'classifier of videos' if classifier else 'video encoder'} of Masked Motion Encoding "
        "([arXiv 2210.06096](https://arxiv.org/abs/2210.06096)), an independent implementation.",
        _table("model", _architecture(weights)),
        f"## Use\n\n```python\n{loading}\n```",
        "Input: RGB in 0–1, minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225). "
        f"`{'processor' if format == 'videomae-hf' else 'encoder.features'}` does this itself.",
    ]
    if training := _training(weights.recipe):
        parts.append("## Training\n\n" + _table("setting", training))
    if measured:
        numbers = {name: f"{value:.4g}" for name, value in measured.items()}
        parts.append("## Measured on held-out videos\n\n" + _table("number", numbers))
    if classes and classifier:
        parts.append("## Classes\n\n" + ", ".join(classes))
    parts.append(
        "## Limits\n\nFeatures describe the motion and look of whole clips. They were not tested "
        "for fairness, safety or identification of persons. The licence of the training videos "
        "may restrict the use of these weights."
    )
    return "\n\n".join(parts) + "\n"


def _architecture(weights: Weights) -> dict[str, Any]:
    side = weights.image_size
    return {
        "size": f"ViT-{weights.size}, {weights.depth} blocks, patch 2 × {weights.patch} × "
        f"{weights.patch}",
        "clip": f"{weights.frames} frames of {side} × {side} pixels",
    }


def _training(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe that a reader of the card asks for first."""
    store, init = recipe.get("store"), recipe.get("init")
    settings = {
        "store": ", ".join(PurePosixPath(one).name for one in _listed(store)),
        "frame stride": recipe.get("data", {}).get("stride"),
        "predicted": ", ".join(recipe.get("loss", {}).get("contents", [])),
        "hidden": recipe.get("mask", {}).get("ratio"),
        "started from": PurePosixPath(str(init)).name if init else None,
        "steps": recipe.get("optim", {}).get("steps"),
        "epochs": None
        if recipe.get("optim", {}).get("steps")
        else recipe.get("optim", {}).get("epochs"),
        "seed": recipe.get("seed"),
    }
    return {name: value for name, value in settings.items() if value not in (None, "")}


def _listed(store: str | Sequence[str] | None) -> Sequence[str]:
    """The stores of a recipe, which names none, one or several."""
    return [store] if isinstance(store, str) else store or []


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"| {title} | |", "|---|---|", *lines])
