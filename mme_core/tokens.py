"""Tokens of a clip: their positions, their patches, and how some of them are chosen.

Tokens are numbered time, row, column. A mask is bool [B, N], True = hidden, with the same number
of hidden tokens in every row; tokens are gathered by index, so that every shape is static.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mme_core.errors import UsageError
from mme_core.spec import TUBELET


def sinusoid_table(tokens: int, width: int) -> Tensor:
    """Fixed positions over the token index (Vaswani et al.): float32 [1, tokens, width]."""
    channel = torch.arange(width, dtype=torch.float64)
    rate = 10000 ** (2 * (channel // 2) / width)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / rate
    table = torch.where(channel.long() % 2 == 0, angle.sin(), angle.cos())
    return table.float()[None]


def interpolate_positions(
    table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int], path: str
) -> Tensor:
    """Positions [1, n·h·w, width] of the grid `old` for the grid `new`; the same table if equal.

    path  file of the table, for messages

    Bicubic in space, linear in time. Raises UsageError for a table of another size.
    """
    n, h, w = old
    if table.shape[1] != n * h * w:
        if table.shape[1] == math.prod(new):  # a file that does not say what clip it is for
            return table
        raise UsageError(
            f"{path}: {table.shape[1]} positions, but {n}×{h}×{w} tokens were expected; give "
            "frames=… and image_size=… of the clip that the weights were made for"
        )
    if old == new:
        return table
    width = table.shape[-1]
    field = table.reshape(n, h, w, width).permute(0, 3, 1, 2)
    if (h, w) != new[1:]:
        field = F.interpolate(field, size=new[1:], mode="bicubic", align_corners=False)
    if n != new[0]:
        line = field.permute(2, 3, 1, 0).flatten(0, 1)  # [h·w, width, n]
        line = F.interpolate(line, size=new[0], mode="linear", align_corners=False)
        field = line.reshape(*new[1:], width, new[0]).permute(3, 2, 0, 1)
    return field.permute(0, 2, 3, 1).reshape(1, -1, width).contiguous()


def split_tokens(mask_BN: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """Indices of the visible [B, N − hidden] and of the hidden [B, hidden] tokens, ascending."""
    order = torch.argsort(mask_BN.byte(), dim=1, stable=True)
    visible = mask_BN.shape[1] - hidden
    return order[:, :visible], order[:, visible:]


def take_tokens(tokens_BND: Tensor, index_BM: Tensor) -> Tensor:
    """The tokens [B, M, D] at the indices."""
    index = index_BM[..., None].expand(-1, -1, tokens_BND.shape[-1])
    return tokens_BND.gather(1, index)


def distance_to_hidden(visible_BV: Tensor, hidden_BM: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Distance of each visible token to the nearest hidden one, in tokens: float32 [B, V], ≥ 1.

    grid  tubelets, rows and columns of a clip's tokens
    """
    return distances(visible_BV, hidden_BM, grid).amin(2)


def distances(one_BM: Tensor, other_BV: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Distances between tokens of a clip, in tokens: float32 [B, M, V]; grid as above."""
    _, h, w = grid

    def places(index: Tensor) -> Tensor:
        return torch.stack([index // (h * w), index // w % h, index % w], -1).float()

    return torch.cdist(places(one_BM), places(other_BV))


def count_hidden(mask_BN: Tensor) -> int:
    """Number of hidden tokens of a row. Raises UsageError where rows differ.

    This waits until the device has computed the mask. A training step should pass the number on
    instead.
    """
    counts = mask_BN.sum(1).tolist()
    if len(set(counts)) != 1:
        raise UsageError(f"the masks of a batch hide different numbers of tokens: {counts}")
    return int(counts[0])


def cut_patches(clip: Tensor, patch: int) -> Tensor:
    """The patches [B, N, 3·2·patch·patch] of a clip [B, 3, T, H, W] of any dtype.

    The numbers of a patch are ordered by channel, frame, row and column.
    """
    pattern = "b c (n t) (h y) (w x) -> b (n h w) (c t y x)"
    return rearrange(clip, pattern, t=TUBELET, y=patch, x=patch)
