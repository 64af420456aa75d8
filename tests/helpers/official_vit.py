"""VideoMAE's published classifier and encoder written anew from its paper and its parameter names.

Deliberately plain: explicit softmax, separate biases of q and v, positions as a loop. It is what
converted weights are compared with.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class OfficialAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.randn(width) * 0.1)
        self.v_bias = nn.Parameter(torch.randn(width) * 0.1)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).split(d, dim=-1)
        parts = [t.view(b, n, self.heads, -1) for t in (q + self.q_bias, k, v + self.v_bias)]
        q, k, v = (t.permute(0, 2, 1, 3) for t in parts)
        weights = torch.softmax((q / math.sqrt(d // self.heads)) @ k.mT, dim=-1)
        return self.proj((weights @ v).permute(0, 2, 1, 3).reshape(b, n, d))


class OfficialBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = OfficialAttention(width, heads)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


def positions(tokens, width):
    table = torch.zeros(tokens, width)
    for channel in range(width):
        angle = torch.arange(tokens).double() / 10000 ** (2 * (channel // 2) / width)
        table[:, channel] = angle.sin() if channel % 2 == 0 else angle.cos()
    return table


class OfficialEncoder(nn.Module):
    """Tokens of a clip [B, 3, T, H, W]; `norm` as in pre-training."""

    def __init__(self, width, depth, heads, tokens, norm):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, width, (2, 16, 16), stride=(2, 16, 16))
        self.blocks = nn.ModuleList(OfficialBlock(width, heads) for _ in range(depth))
        if norm:
            self.norm = nn.LayerNorm(width, eps=1e-6)
        self.table = positions(tokens, width)

    def forward(self, clip):
        x = self.patch_embed.proj(clip).flatten(2).mT + self.table
        for block in self.blocks:
            x = block(x)
        return self.norm(x) if hasattr(self, "norm") else x


class OfficialClassifier(OfficialEncoder):
    def __init__(self, width, depth, heads, tokens, classes):
        super().__init__(width, depth, heads, tokens, norm=False)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, clip):
        return self.head(self.fc_norm(super().forward(clip).mean(1)))


class OfficialPretraining(nn.Module):
    """Only the parts that a checkpoint names; the decoder is not run."""

    def __init__(self, width, depth, heads, tokens):
        super().__init__()
        self.encoder = OfficialEncoder(width, depth, heads, tokens, norm=True)
        self.encoder_to_decoder = nn.Linear(width, 96, bias=False)
        self.decoder = nn.ModuleList([OfficialBlock(96, 3)])
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 96))
