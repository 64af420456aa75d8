"""Weights that `init=…` and `--weights` name. Every command reads the same files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from mme_core.encoder import VideoEncoder, encoder_from, random_encoder
from mme_core.errors import UsageError, named
from mme_core.model import Classifier
from mme_core.weights.load import Weights, build_from, clip_arguments, load_weights, read_weights
from train.recipes.messages import say
from train.recipes.pretraining import ModelConfig

RANDOM = "none"  # init=none: random weights

# the options that set what the library calls frames and image_size
clip_of_weights = named(frames="mme convert --frames", image_size="--image-size")


def read_init(init: str) -> Weights | None:
    """What `init` names, or None for random weights. Warns of a run that is not finished."""
    if init == RANDOM:
        return None
    weights = read_weights(init)
    if Path(init).is_dir() and weights.progress:
        done, steps = weights.progress
        if done < steps:
            say(
                f"warning: the run {init} is not finished: these are its weights after step "
                f"{done} of {steps}"
            )
    return weights


@clip_of_weights
@named(size="model.size", patch="model.patch", depth="model.depth")
def fill(model: nn.Module, init: str) -> str:
    """Loads what `init` names into a model, without a classifier's head; returns a summary."""
    weights = read_init(init)
    if weights is None:
        return "random weights"
    return f"{init}: {load_weights(model, weights, head=False)}"


class InitialEncoder(NamedTuple):
    """An encoder to measure, its architecture, and the recipe that trained it ({}: none known)."""

    encoder: VideoEncoder
    model: ModelConfig
    recipe: dict[str, Any]


@clip_of_weights
def read_encoder(
    init: str, model: ModelConfig, seed: int, given: Collection[str] = ()
) -> InitialEncoder:
    """The encoder that `init` names; for random weights one of `model`, drawn by `seed`.

    given  keys that the user set; the others of `model` are defaults, which weights need not have
    Raises UsageError where a given key of `model` is not what the weights have.
    """
    weights = read_init(init)
    if weights is None:
        encoder = random_encoder(
            seed,
            model.size,
            frames=model.frames,
            image_size=model.image_size,
            patch=model.patch,
            depth=model.depth,
        )
        return InitialEncoder(encoder, model, {})
    theirs = architecture(weights)
    for key in ("size", "depth", "frames", "image_size", "patch"):
        mine, there = getattr(model, key), getattr(theirs, key)
        if f"model.{key}" in given and mine not in (there, None):
            raise UsageError(
                f"model.{key}={mine}: {init} has model.{key}={there}; leave it out, since model.* "
                "is for init=none"
            )
    return InitialEncoder(encoder_from(weights), theirs, weights.recipe)


@clip_of_weights
def read_classifier(init: str) -> tuple[Classifier, Weights]:
    """The fine-tuned classifier that `init` names, in evaluation mode, and its weights."""
    weights = read_init(init)
    if weights is None:
        raise UsageError("init=none: random weights classify nothing; name a fine-tuned run")
    if weights.num_classes is None:
        raise UsageError(
            f"{init} has no classification head: it is a pre-trained encoder; fine-tune it with "
            "`mme finetune` first"
        )
    return build_from(weights), weights


def architecture(weights: Weights) -> ModelConfig:
    """The model that a file of weights is for."""
    return ModelConfig(size=weights.size, **clip_arguments(weights))
