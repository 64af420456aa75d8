"""Mixup and CutMix for clips: timm's, on the clip seen as one image of C · T channels."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup

from mme_core.errors import UsageError


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


def mix(
    mixup: Mixup, clip_BCTHW: torch.Tensor, label_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed clips [B, C, T, H, W] (in place) and soft targets float32 [B, classes].

    The box of CutMix is the same in all frames.
    """
    images, target = mixup(clip_BCTHW.flatten(1, 2), label_B)
    return images.view_as(clip_BCTHW), target
