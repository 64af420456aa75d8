"""AdamW, its schedule, and one guarded step: what MAE-style pre-training and fine-tuning share."""

from __future__ import annotations

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
    model: nn.Module, config: OptimConfig, lr: float, groups: list[dict] | None = None
) -> torch.optim.AdamW:
    """Fused AdamW; no weight decay on norms, biases and mask tokens.

    `groups` replaces the parameter groups made here (layer-wise rates, say).
    """
    if groups is None:
        tokens = [name for name, _ in model.named_parameters() if name.endswith("mask_token")]
        groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=tokens)
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(config.betas), fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup_steps: int, min_lr: float
) -> CosineLRScheduler:
    """Linear warm-up, then half a cosine, which comes to `min_lr` after the last of `steps`.

    Call `schedule.step_update(step)` before step number `step` (from 0): a function of the step
    alone, so a resumed run needs no state of it.
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
    """Clips and steps, unless `loss` (of all processes) or the gradient is not finite.

    The decision stays on the device (fused AdamW reads `found_inf`), so that the host never waits
    for it; under DDP every process holds the same gradient and decides alike. Returns the
    gradient's norm before clipping, on the device. With fp16 an overflowing gradient is the
    scaler's ordinary search for its scale.
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
        optimizer.found_inf = (~torch.isfinite(loss + norm)).float()
        optimizer.step()
    return norm
