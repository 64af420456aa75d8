"""AdamW with its parameter groups and schedule, and a step that skips what is not finite."""

from __future__ import annotations

import re
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from train.recipes.pretraining import OptimConfig

REFERENCE_BATCH = 256  # the batch that a base learning rate is quoted for
WARMUP_START = 1e-6  # learning rate of the first step


def scaled_lr(base: float, effective_batch: int) -> float:
    """The linear rule: base × effective batch / 256."""
    return base * effective_batch / REFERENCE_BATCH


def make_optimizer(
    model: nn.Module, config: OptimConfig, lr: float, groups: list[dict[str, Any]] | None = None
) -> torch.optim.AdamW:
    """Fused AdamW; no weight decay on norms, biases and mask tokens.

    `groups` replaces the parameter groups made here (layer-wise rates, say).
    """
    if groups is None:
        tokens = [name for name, _ in model.named_parameters() if name.endswith("mask_token")]
        groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=tokens)
    return torch.optim.AdamW(groups, lr=lr, betas=(config.betas[0], config.betas[1]), fused=True)


def layer_of(name: str, depth: int) -> int:
    """0: patch embedding; i + 1: block i; depth + 1: the last norm and the head."""
    block = re.match(r"encoder\.blocks\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1
    return 0 if name.startswith("encoder.patch_embed.") else depth + 1


def layer_decay_groups(
    model: nn.Module, depth: int, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups with layer-wise learning-rate decay (BEiT, VideoMAE).

    Layer l learns at lr · decay^(depth + 1 − l), a factor that timm's schedule reads from the key
    `lr_scale`. Vectors (biases, norms) have no weight decay. Leaves out frozen parameters.
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


def make_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup_steps: int, min_lr: float
) -> CosineLRScheduler:
    """Linear warm-up, then half a cosine that reaches `min_lr` after the last of `steps`.

    Call `schedule.step_update(step)` before step number `step` (from 0). The rate is a function of
    the step alone, so a checkpoint holds no state of the schedule.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=max(steps - warmup_steps, 1),
        lr_min=min_lr,
        warmup_t=warmup_steps,
        warmup_lr_init=WARMUP_START,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def guarded_step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    parameters: list[nn.Parameter],
    loss: Tensor,
    clip: float | None,
) -> Tensor:
    """Clips the gradient and steps, unless `loss` (of all processes) or the gradient is not finite.

    The decision stays on the device (fused AdamW reads `found_inf`), so that the host never waits
    for it; under DDP every process holds the same gradient and decides alike. Returns the
    gradient's norm before clipping, on the device. With fp16 a gradient overflows now and then
    while the scaler looks for its scale; the scaler then skips the step itself.
    """
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    else:
        # fused AdamW looks for this attribute, which the base class does not declare
        optimizer.found_inf = (  # type: ignore[attr-defined]
            ~torch.isfinite(loss + norm)
        ).float()
        optimizer.step()
    return norm
