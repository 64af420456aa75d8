"""The classifier with its initial weights, and its loss: cross-entropy after mixup and CutMix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor, nn
from torch.nn import functional as F

from mme_core.clips.views import to_model_input
from mme_core.errors import UsageError, named
from mme_core.model import Classifier, build_classifier
from train.data.augment import erase
from train.data.device_augment import augment_batch
from train.recipes.classification import AugmentConfig, FinetuneConfig
from train.recipes.pretraining import RESIDUALS
from train.recipes.weights import fill


@named(size="model.size", frames="model.frames", image_size="model.image_size", patch="model.patch")
def build(config: FinetuneConfig, num_classes: int) -> tuple[Classifier, str]:
    """The classifier with its initial weights, and what was loaded into it, for the log."""
    torch.manual_seed(config.seed)  # the head, and the encoder where init=none
    model = build_classifier(
        config.model.size,
        num_classes,
        frames=config.model.frames,
        image_size=config.model.image_size,
        patch=config.model.patch,
        depth=config.model.depth,
        drop_path=config.model.drop_path,
        fc_dropout=config.model.fc_dropout,
        residual=RESIDUALS[config.model.residual],
    )
    return model, fill(model, config.init)


@dataclass(frozen=True)
class Mixing:
    """Turns a batch of `train.data.labelled` that is on the device into {"clip", "target"}.

    It flips and augments the frames, where the loader left that to the device, normalises them and
    erases boxes. Then it mixes the clips of the batch (mixup or CutMix); without mixing it only
    smooths the labels. The device does this faster than the loader. It is not compiled, because
    the operations are drawn anew for each batch.
    """

    augment: AugmentConfig
    mixup: Mixup | None
    classes: int

    @classmethod
    def of(cls, augment: AugmentConfig, classes: int, batch_size: int) -> Mixing:
        mixup = build_mixup(augment.mixup, augment.cutmix, augment.smoothing, classes, batch_size)
        return cls(augment, mixup, classes)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """clip float32 [B, 3, T, H, W], normalised; target float32 [B, classes], soft."""
        label, frames = batch["label"], batch["frames"]
        if "drawn" in batch:
            frames = augment_batch(frames, batch["drawn"])
        clip = to_model_input(frames)
        if self.augment.erase:
            clip = erase(clip, self.augment.erase)
        if self.mixup is not None:
            clip, target = mix(self.mixup, clip, label)
        else:
            target = mixup_target(label, self.classes, 1.0, self.augment.smoothing)
        return {"clip": clip, "target": target}


class ClassifierStep(nn.Module):
    """Mean cross-entropy over a batch of `Mixing`: what is compiled and run under DDP.

    dtype  of autocast; float32 turns autocast off
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        clip = batch["clip"]
        enabled = self.dtype is not torch.float32
        with torch.autocast(clip.device.type, self.dtype, enabled=enabled):
            logits = self.model(clip)
        return F.cross_entropy(logits.float(), batch["target"]), {}


def build_mixup(
    mixup: float, cutmix: float, smoothing: float, num_classes: int, batch_size: int
) -> Mixup | None:
    """timm's batch-wise Mixup (switching to CutMix half of the time), or None when both are 0."""
    if mixup <= 0 and cutmix <= 0:
        return None
    if batch_size % 2:
        raise UsageError(
            f"data.batch_size={batch_size} must be even with mixup, which pairs the clips of a "
            "batch; set augment.mixup=0 augment.cutmix=0 otherwise"
        )
    return Mixup(
        mixup_alpha=mixup,
        cutmix_alpha=cutmix,
        label_smoothing=smoothing,
        num_classes=num_classes,
    )


def mix(mixup: Mixup, clip_BCTHW: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed clips [B, C, T, H, W] (in place) and soft targets float32 [B, classes].

    The box of CutMix is the same in all frames.
    """
    images, target = mixup(clip_BCTHW.flatten(1, 2), label_B)
    return images.view_as(clip_BCTHW), target
