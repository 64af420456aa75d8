"""The classifier with its initial weights, and the loss it is fine-tuned with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor, nn
from torch.nn import functional as F

from mme_core.clips.views import to_model_input
from mme_core.model import Classifier, build_classifier
from train.data.augment import erase
from train.objective.mixup import build_mixup, mix
from train.recipes.classification import AugmentConfig, FinetuneConfig
from train.recipes.keys import named
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
    )
    return model, fill(model, config.init)


@dataclass(frozen=True)
class SoftLoss:
    """Cross-entropy with the soft targets of mixup and CutMix, or of label smoothing alone."""

    augment: AugmentConfig
    mixup: Mixup | None
    classes: int
    device: torch.device
    dtype: torch.dtype  # of autocast; float32: none

    @classmethod
    def of(
        cls,
        augment: AugmentConfig,
        classes: int,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> SoftLoss:
        mixup = build_mixup(augment.mixup, augment.cutmix, augment.smoothing, classes, batch_size)
        return cls(augment, mixup, classes, device, dtype)

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The mean over a batch of `train.data.labelled`: erased and mixed here, on the device."""
        label = batch["label"].to(self.device, non_blocking=True)
        clip = to_model_input(batch["frames"].to(self.device, non_blocking=True))
        if self.augment.erase:
            clip = erase(clip, self.augment.erase)
        if self.mixup is not None:
            clip, target = mix(self.mixup, clip, label)
        else:
            target = mixup_target(label, self.classes, 1.0, self.augment.smoothing)
        enabled = self.dtype is not torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=enabled):
            logits = model(clip)
        return F.cross_entropy(logits.float(), target)
