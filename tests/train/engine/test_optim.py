"""Learning-rate rule, schedule, parameter groups, and the step that is skipped."""

import math

import pytest
import torch
from torch import nn

from mme_core.model import build_classifier
from train.engine.optim import (
    WARMUP_START,
    guarded_step,
    layer_decay_groups,
    layer_of,
    make_optimizer,
    make_schedule,
    scaled_lr,
)
from train.recipes.pretraining import OptimConfig


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 2))


def test_the_rate_follows_the_batch():
    assert scaled_lr(1.5e-4, 1024) == pytest.approx(6e-4)


def test_norms_biases_and_mask_tokens_do_not_decay():
    model = Small()
    optimizer = make_optimizer(model, OptimConfig(), lr=0.1)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {name for name, p in model.named_parameters() if decay[id(p)]} == {"linear.weight"}
    assert decay[id(model.linear.weight)] == 0.05
    assert optimizer.defaults["betas"] == (0.9, 0.95)


def test_warm_up_is_linear_then_half_a_cosine():
    optimizer = make_optimizer(Small(), OptimConfig(), lr=1.0)
    schedule = make_schedule(optimizer, steps=110, warmup_steps=10, min_lr=0.1)

    def rate(step):
        schedule.step_update(step)
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        return rates.pop()

    assert rate(0) == pytest.approx(1e-6)
    assert rate(5) == pytest.approx((1 + WARMUP_START) / 2)
    assert rate(10) == pytest.approx(1.0)
    assert rate(35) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert rate(110) == pytest.approx(0.1)


def step(model, optimizer, scale, clip=None):
    optimizer.zero_grad()
    loss = scale * model.linear(torch.ones(1, 3)).sum()
    loss.backward()
    off = torch.amp.GradScaler(enabled=False)
    return guarded_step(optimizer, off, list(model.parameters()), loss.detach(), clip)


def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_works():
    model = Small()
    optimizer = make_optimizer(model, OptimConfig(), lr=0.1)
    step(model, optimizer, 1.0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    counts = [s["step"].item() for s in optimizer.state.values()]
    norm = step(model, optimizer, float("nan"))
    assert not torch.isfinite(norm)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert [s["step"].item() for s in optimizer.state.values()] == counts
    step(model, optimizer, 1.0)
    assert not torch.equal(model.linear.weight, before["linear.weight"])


def test_clipping_bounds_the_gradient_and_reports_the_norm_before():
    model = Small()
    optimizer = make_optimizer(model, OptimConfig(), lr=0.1)
    norm = step(model, optimizer, 100.0, clip=0.5)
    after = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert norm > 100
    assert after == pytest.approx(0.5, rel=1e-3)


def test_a_gradient_that_is_not_finite_changes_nothing_though_the_loss_is():
    model = Small()
    optimizer = make_optimizer(model, OptimConfig(), lr=0.1)
    step(model, optimizer, 1.0)
    before = model.linear.weight.clone()
    model.linear.weight.grad.fill_(float("inf"))
    off = torch.amp.GradScaler(enabled=False)
    guarded_step(optimizer, off, list(model.parameters()), torch.tensor(1.0), None)
    assert torch.equal(model.linear.weight, before)


def test_a_loss_that_is_not_finite_changes_nothing_though_the_gradient_is():
    model = Small()
    optimizer = make_optimizer(model, OptimConfig(), lr=0.1)
    step(model, optimizer, 1.0)
    before = model.linear.weight.clone()
    off = torch.amp.GradScaler(enabled=False)
    norm = guarded_step(optimizer, off, list(model.parameters()), torch.tensor(math.inf), None)
    assert torch.isfinite(norm) and torch.equal(model.linear.weight, before)


def test_layers_of_a_twelve_block_encoder():
    assert layer_of("encoder.patch_embed.proj.weight", 12) == 0
    assert layer_of("encoder.blocks.0.attn.qkv.weight", 12) == 1
    assert layer_of("encoder.blocks.11.norm2.bias", 12) == 12
    assert layer_of("fc_norm.weight", 12) == 13
    assert layer_of("head.bias", 12) == 13


def test_groups_have_the_published_scales_and_decays():
    model = build_classifier("tiny", 5, frames=4, image_size=32)
    groups = layer_decay_groups(model, 12, 0.75, 0.05)
    assert len(groups) == 2 * 14
    by_name = {name: group for group in groups for name in group["names"]}
    # layer l of 0 … 13 learns at 0.75^(13 − l)
    for name, scale, decay in [
        ("encoder.patch_embed.proj.weight", 0.75**13, 0.05),
        ("encoder.patch_embed.proj.bias", 0.75**13, 0.0),
        ("encoder.blocks.0.attn.qkv.weight", 0.75**12, 0.05),
        ("encoder.blocks.0.attn.qkv.bias", 0.75**12, 0.0),
        ("encoder.blocks.11.mlp.fc2.weight", 0.75, 0.05),
        ("encoder.blocks.11.norm1.weight", 0.75, 0.0),
        ("fc_norm.weight", 1.0, 0.0),
        ("head.weight", 1.0, 0.05),
        ("head.bias", 1.0, 0.0),
    ]:
        assert by_name[name]["lr_scale"] == pytest.approx(scale)
        assert by_name[name]["weight_decay"] == decay
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
