"""The yardstick of `benchmarks/step.py`: the same model, written without care for speed.

It has a Conv3d patch embedding, boolean masks, query and value biases that each call joins, and
attention as softmax(q kᵀ) v with the whole matrix in memory. From the same weights it computes
the same as `mme_core.model.PretrainingModel` with a joint decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mme_core.model import PretrainingModel
from mme_core.tokens import sinusoid_table


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).reshape(b, n, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, width))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PlainAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class PlainModel(nn.Module):
    """Has the sizes of an existing model; `load` copies its weights."""

    def __init__(self, model: PretrainingModel) -> None:
        super().__init__()
        encoder, decoder = model.encoder, model.decoders["joint"]
        kernel = encoder.patch_embed.proj.kernel_size
        width, narrow = encoder.width, decoder.embed.out_features
        self.positions = sinusoid_table(encoder.tokens, width)
        self.decoder_positions = sinusoid_table(encoder.tokens, narrow)
        self.patch_embed = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)
        self.blocks = nn.ModuleList(
            PlainBlock(width, block.attn.num_heads) for block in encoder.blocks
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.embed = nn.Linear(width, narrow, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.decoder_blocks = nn.ModuleList(
            PlainBlock(narrow, block.attn.num_heads) for block in decoder.blocks
        )
        self.decoder_norm = nn.LayerNorm(narrow, eps=1e-6)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(narrow, head.out_features) for name, head in decoder.heads.items()}
        )
        self._load(model)

    def forward(self, clip: Tensor, mask_BN: Tensor) -> dict[str, Tensor]:
        tokens = self.patch_embed(clip).flatten(2).transpose(1, 2)
        tokens = tokens + self.positions.to(tokens)
        b, _, width = tokens.shape
        x = tokens[~mask_BN].reshape(b, -1, width)
        for block in self.blocks:
            x = block(x)
        x = self.embed(self.norm(x))
        positions = self.decoder_positions.to(x).expand(b, -1, -1)
        seen = positions[~mask_BN].reshape(b, -1, x.shape[-1])
        asked = positions[mask_BN].reshape(b, -1, x.shape[-1])
        x = torch.cat([x + seen, self.mask_token + asked], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        x = self.decoder_norm(x[:, -asked.shape[1] :])
        return {name: head(x) for name, head in self.heads.items()}

    def _load(self, model: PretrainingModel) -> None:
        encoder, decoder = model.encoder, model.decoders["joint"]
        self.patch_embed.load_state_dict(encoder.patch_embed.proj.state_dict())
        self.norm.load_state_dict(encoder.norm.state_dict())
        self.embed.load_state_dict(decoder.embed.state_dict())
        self.decoder_norm.load_state_dict(decoder.norm.state_dict())
        self.heads.load_state_dict(decoder.heads.state_dict())
        self.mask_token.data.copy_(decoder.mask_token)
        for mine, theirs in (
            *zip(self.blocks, encoder.blocks),
            *zip(self.decoder_blocks, decoder.blocks),
        ):
            _load_block(mine, theirs)


def plain_loss(
    predictions: dict[str, Tensor], targets: dict[str, tuple[Tensor, Tensor]], mask_BN: Tensor
) -> Tensor:
    """Equation 1 with boolean masks."""
    total = torch.zeros(())
    for name, prediction in predictions.items():
        target, valid = targets[name]
        error = (prediction - target[mask_BN].reshape(prediction.shape)).square()
        error = error * valid[mask_BN].reshape(*prediction.shape[:2], -1)
        total = total + error.sum() / error.numel()
    return total


def _load_block(mine: PlainBlock, theirs: nn.Module) -> None:
    q_bias, _, v_bias = theirs.attn.qkv.bias.data.chunk(3)
    mine.attn.q_bias.data.copy_(q_bias)
    mine.attn.v_bias.data.copy_(v_bias)
    mine.attn.qkv.weight.data.copy_(theirs.attn.qkv.weight)
    mine.attn.proj.load_state_dict(theirs.attn.proj.state_dict())
    mine.norm1.load_state_dict(theirs.norm1.state_dict())
    mine.norm2.load_state_dict(theirs.norm2.state_dict())
    mine.fc1.load_state_dict(theirs.mlp.fc1.state_dict())
    mine.fc2.load_state_dict(theirs.mlp.fc2.state_dict())
