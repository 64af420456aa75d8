"""Parameter groups with layer-wise learning-rate decay (BEiT, VideoMAE)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn


def layer_of(name: str, depth: int) -> int:
    """0: patch embedding; i + 1: block i; depth + 1: the last norm and the head."""
    block = re.match(r"encoder\.blocks\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1
    return 0 if name.startswith("encoder.patch_embed.") else depth + 1


def layer_decay_groups(
    model: nn.Module, depth: int, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW's groups: layer l learns at lr · decay^(depth + 1 − l), key `lr_scale`.

    Vectors (biases, norms) have no weight decay. Parameters that are frozen are left out.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decays = layer_of(name, depth), parameter.ndim > 1
        if (layer, decays) not in groups:
            groups[layer, decays] = {
                "params": [],
                "names": [],
                "lr_scale": decay ** (depth + 1 - layer),
                "weight_decay": weight_decay if decays else 0.0,
            }
        groups[layer, decays]["params"].append(parameter)
        groups[layer, decays]["names"].append(name)
    return list(groups.values())
