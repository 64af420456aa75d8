"""A frozen encoder as a source of features: tokens, and their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mme_core.model import Encoder, build_classifier, build_pretraining_model
from mme_core.weights.load import Weights, clip_arguments, load_weights
from train.recipes.pretraining import ModelConfig


class Backbone(nn.Module):
    """The encoder, and the norm that follows the mean (of a fine-tuned one)."""

    def __init__(self, encoder: Encoder, fc_norm: nn.Module) -> None:
        super().__init__()
        self.encoder, self.fc_norm = encoder, fc_norm

    def tokens(self, clip: Tensor) -> Tensor:
        """[B, 3, T, H, W] → [B, N, width], after the encoder's last norm where it has one."""
        return self.encoder(clip)

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, N, width] → [B, width]."""
        return self.fc_norm(tokens.mean(1))


def backbone_from(weights: Weights) -> Backbone:
    """The encoder of a pre-trained or a fine-tuned file."""
    clip = clip_arguments(weights)
    if "encoder.norm.weight" in weights.tensors:
        backbone = Backbone(build_pretraining_model(weights.size, **clip).encoder, nn.Identity())
    else:
        model = build_classifier(weights.size, 1, **clip)
        backbone = Backbone(model.encoder, model.fc_norm)
    load_weights(backbone, weights, head=False)
    return backbone.eval()


def random_backbone(model: ModelConfig, seed: int) -> Backbone:
    """An encoder with the weights that pre-training starts from."""
    torch.manual_seed(seed)
    built = build_pretraining_model(
        model.size,
        frames=model.frames,
        image_size=model.image_size,
        patch=model.patch,
        depth=model.depth,
    )
    return Backbone(built.encoder, nn.Identity()).eval()


def model_config(weights: Weights) -> ModelConfig:
    """The architecture of a file of weights."""
    return ModelConfig(
        size=weights.size,
        depth=weights.depth,
        frames=weights.frames,
        image_size=weights.image_size,
        patch=weights.patch,
    )
