"""Probes trained with many learning rates and weight decays at once, as one batched computation.

The first axis of each parameter numbers the trials; each trial has its own learning rate and weight
decay. The loss is the sum over the trials, so each trial gets its own gradient alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BETAS, EPSILON = (0.9, 0.999), 1e-8
_MLP_RATIO = 4


@dataclass(frozen=True)
class Trial:
    """One pair of learning rate and weight decay."""

    lr: float
    weight_decay: float


def trials(lrs: Sequence[float], weight_decays: Sequence[float]) -> list[Trial]:
    """All pairs, learning rates first."""
    return [Trial(lr, decay) for lr, decay in itertools.product(lrs, weight_decays)]


class LinearProbes(nn.Module):
    """Batch norm without scale and shift, then S linear heads: [B, D] → scores [S, B, C].

    The features are frozen, so the statistics for testing are plain means over all batches. With a
    moving average, a few steps would leave much of its initial values.
    """

    def __init__(self, count: int, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, momentum=None)
        self.weight = nn.Parameter(0.01 * torch.randn(count, width, classes))
        self.bias = nn.Parameter(torch.zeros(count, 1, classes))

    def forward(self, features_BD: Tensor) -> Tensor:
        return self.norm(features_BD) @ self.weight + self.bias


class AttentiveProbes(nn.Module):
    """S attentive heads: one learned query attends to the tokens; MLP; linear (as in V-JEPA).

    Tokens [B, N, D] → scores [S, B, C]. With a single query the key projection can be part of it:
    q · (W x) = (Wᵀ q) · x. So each of the A attention heads holds one vector of the tokens' width.
    The value projection is linear, so it is applied after the average. The attention scores and the
    average are then all that is computed for each token.
    """

    def __init__(self, count: int, width: int, classes: int, heads: int) -> None:
        super().__init__()
        hidden = _MLP_RATIO * width

        def weight(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(count, *shape) / math.sqrt(fan_in))

        self.query = nn.Parameter(0.02 * torch.randn(count, heads, width))
        self.value = weight(heads, width, width // heads, fan_in=width)
        self.value_bias = nn.Parameter(torch.zeros(count, 1, width))
        self.hidden, self.hidden_bias = (
            weight(width, hidden, fan_in=width),
            nn.Parameter(torch.zeros(count, 1, hidden)),
        )
        self.out, self.out_bias = (
            weight(hidden, width, fan_in=hidden),
            nn.Parameter(torch.zeros(count, 1, width)),
        )
        self.head = nn.Parameter(0.01 * torch.randn(count, width, classes))
        self.head_bias = nn.Parameter(torch.zeros(count, 1, classes))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        tokens = F.layer_norm(tokens_BND, tokens_BND.shape[-1:])
        scores = torch.einsum("bnd,sad->sban", tokens, self.query)
        mean = torch.einsum("sban,bnd->sbad", scores.softmax(-1), tokens)
        x = torch.einsum("sbad,sadv->sbav", mean, self.value).flatten(2) + self.value_bias
        hidden = F.gelu(F.layer_norm(x, x.shape[-1:]) @ self.hidden + self.hidden_bias)
        x = x + hidden @ self.out + self.out_bias
        return F.layer_norm(x, x.shape[-1:]) @ self.head + self.head_bias


class SweepAdamW:
    """AdamW with the learning rate and weight decay of trial s for `parameter[s]`.

    Parameters whose names end in "bias" do not decay.
    """

    def __init__(self, probes: nn.Module, chosen: Sequence[Trial]) -> None:
        names, self.parameters = zip(*probes.named_parameters())
        self.decays = [not name.endswith("bias") for name in names]
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        device = self.parameters[0].device
        self.lr = torch.tensor([trial.lr for trial in chosen], device=device)
        self.decay = torch.tensor([trial.weight_decay for trial in chosen], device=device)
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One step at `scale` times the trials' rates; clears the gradients."""
        self.steps += 1
        first_share, second_share = (1 - beta**self.steps for beta in BETAS)
        every = zip(self.parameters, self.decays, self.first, self.second)
        for p, decays, first, second in every:
            shape = (-1,) + (1,) * (p.ndim - 1)
            lr = (self.lr * scale).view(shape)
            if decays:
                p.mul_(1 - lr * self.decay.view(shape))
            assert p.grad is not None  # every parameter has a part in the loss
            first.lerp_(p.grad, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(p.grad, p.grad, value=1 - BETAS[1])
            deviation = second.sqrt().div_(math.sqrt(second_share)).add_(EPSILON)
            p.sub_((first / deviation).mul_(lr / first_share))
            p.grad = None


def train_probes(
    probes: nn.Module,
    read: Callable[[Tensor], Tensor],
    labels_N: Tensor,
    chosen: Sequence[Trial],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> nn.Module:
    """Trains all trials on the same batches: AdamW, cosine to 0. Returns the probes.

    read      indices of rows -> the inputs of these rows, on the device of the probes
    labels_N  int64, on the same device
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = SweepAdamW(probes, chosen)
    size = min(batch_size, len(labels_N))
    per_epoch = len(labels_N) // size
    probes.train()
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            rows = torch.randperm(len(labels_N), generator=order)
        index = rows[step % per_epoch * size :][:size]
        scores = probes(read(index))
        target = labels_N[index.to(labels_N.device)].expand(len(scores), -1)
        loss = F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="sum") / size
        loss.backward()
        optimizer.step(0.5 * (1 + math.cos(math.pi * step / (epochs * per_epoch))))
    return probes.eval()


@torch.inference_mode()
def accuracies(
    probes: nn.Module, read: Callable[[Tensor], Tensor], labels_N: Tensor, batch_size: int
) -> Tensor:
    """Top-1 of each trial, float64 [S]."""
    hits = torch.zeros((), dtype=torch.int64, device=labels_N.device)
    for index in torch.arange(len(labels_N)).split(batch_size):
        found = probes(read(index)).argmax(-1) == labels_N[index.to(labels_N.device)]
        hits = hits + found.sum(1)
    return hits.double().cpu() / len(labels_N)
