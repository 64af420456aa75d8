"""The parts of VideoMAE's vision transformer: patch embedding, encoder, decoder with heads.

Tokens and masks are described in `mme_core.tokens`. Only visible patches are embedded, and only the
tokens that are asked for pass the last block of a decoder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from mme_core.errors import UsageError
from mme_core.spec import TUBELET
from mme_core.tokens import cut_patches, sinusoid_table, take_tokens

SIZES = {  # width, depth, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
HEAD_HIDDEN = 512  # width of a two-layer head (the authors' released script)

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class PatchEmbed(nn.Module):
    """Conv3d tubelet embedding, computed as a matrix product over patches."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        kernel = (TUBELET, patch, patch)
        self.proj = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)

    def forward(self, patches_BND: Tensor) -> Tensor:
        """Tokens [B, N, width] of patches as `mme_core.tokens.cut_patches` orders their numbers."""
        return F.linear(patches_BND, self.proj.weight.flatten(1), self.proj.bias)


class Encoder(nn.Module):
    """Patch embedding, fixed positions, blocks and (for pre-training) the last norm.

    residual  dtype of the tokens between blocks. Default: as the embedding and autocast give it
    """

    pos_embed: Tensor

    def __init__(
        self,
        size: str,
        *,
        frames: int,
        image_size: int,
        patch: int,
        depth: int | None,
        drop_path: float = 0.0,
        norm: bool = True,
        residual: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise UsageError(f"size={size} is not one of {', '.join(SIZES)}")
        if frames < TUBELET or frames % TUBELET:
            raise UsageError(f"frames={frames} must be even: a tubelet is {TUBELET} frames")
        if patch < 1:
            raise UsageError(f"patch={patch} must be at least 1")
        if image_size < patch or image_size % patch:
            raise UsageError(f"image_size={image_size} must be a multiple of patch={patch}")
        if depth is not None and depth < 1:
            raise UsageError(f"depth={depth} must be at least 1")
        width, full_depth, heads = SIZES[size]
        side = image_size // patch
        self.width = width
        self.grid = (frames // TUBELET, side, side)
        self.patch, self.clip_shape = patch, (3, frames, image_size, image_size)
        self.residual = residual
        self.patch_embed = PatchEmbed(width, patch)
        # Saved with the weights: a table that was interpolated for another resolution stays so.
        self.register_buffer("pos_embed", sinusoid_table(self.tokens, width))
        depth = full_depth if depth is None else depth
        rates = [drop_path * block / max(depth - 1, 1) for block in range(depth)]
        self.blocks = nn.ModuleList(_block(width, heads, rate) for rate in rates)
        self.norm = LayerNorm(width) if norm else nn.Identity()

    @property
    def tokens(self) -> int:
        n, h, w = self.grid
        return n * h * w

    def forward(self, clip: Tensor, visible_BV: Tensor | None = None) -> Tensor:
        """Tokens [B, V, width] of the clip [B, 3, T, H, W] at the indices (None: all tokens)."""
        if tuple(clip.shape[1:]) != self.clip_shape:
            raise UsageError(
                f"the clip is {list(clip.shape[1:])}, the model takes {list(self.clip_shape)}"
            )
        if not clip.is_floating_point():
            raise UsageError(
                f"the clip is {clip.dtype}, and must be float: "
                "use mme_core.clips.views.to_model_input on uint8 frames"
            )
        patches = cut_patches(clip, self.patch)
        if visible_BV is not None:
            patches = take_tokens(patches, visible_BV)
        return self.encode_patches(patches, visible_BV)

    def encode_patches(self, patches_BVD: Tensor, visible_BV: Tensor | None = None) -> Tensor:
        """Tokens [B, V, width] of normalised patches, which are those at the indices (None: all).

        `mme_core.tokens.cut_patches` says how the numbers of a patch are ordered.
        """
        return self.encode_depths(patches_BVD, visible_BV, ())[-1]

    def encode_depths(
        self, patches_BVD: Tensor, visible_BV: Tensor | None, depths: Collection[int]
    ) -> list[Tensor]:
        """Tokens [B, V, width] after each of the blocks `depths` (1: the first) and after the last.

        All pass the last norm. The rest is as of `encode_patches`.
        """
        positions = self.pos_embed
        if visible_BV is not None:
            positions = take_tokens(positions.expand(len(visible_BV), -1, -1), visible_BV)
        x = self.patch_embed(patches_BVD) + positions
        x = x if self.residual is None else x.to(self.residual)
        early = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in depths:
                early.append(self.norm(x))
        return [*early, self.norm(x)]


class Decoder(nn.Module):
    """From encoded visible tokens to predictions at the hidden ones."""

    pos_embed: Tensor

    def __init__(
        self,
        encoder_width: int,
        tokens: int,
        *,
        width: int,
        depth: int,
        heads: int,
        outputs: Mapping[str, int],
        head_layers: int,
        residual: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.embed = nn.Linear(encoder_width, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sinusoid_table(tokens, width))
        self.blocks = nn.ModuleList(_block(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.heads = nn.ModuleDict(
            {name: _head(width, size, head_layers) for name, size in outputs.items()}
        )

    def forward(
        self, encoded: Tensor, visible_BV: Tensor, hidden_BM: Tensor, seen_too: bool = False
    ) -> dict[str, Tensor]:
        """Predictions [B, M, D] of each head at the hidden tokens, in their order.

        seen_too  at the visible tokens as well: [B, V + M, D], the visible ones first
        """
        positions = self.pos_embed.expand(len(encoded), -1, -1)
        seen = self.embed(encoded) + take_tokens(positions, visible_BV)
        asked = self.mask_token + take_tokens(positions, hidden_BM)
        # Attention does not care for order, so hidden tokens come last instead of in their place.
        x = torch.cat([seen, asked.to(seen.dtype)], dim=1)
        x = x if self.residual is None else x.to(self.residual)
        for block in self.blocks[:-1]:
            x = block(x)
        first = 0 if seen_too else visible_BV.shape[1]
        x = self.norm(_last_tokens(self.blocks[-1], x, first=first))
        return {name: head(x) for name, head in self.heads.items()}


def _block(width: int, heads: int, drop_path: float = 0.0) -> Block:
    # VideoMAE has biases on q and v only; one on the keys cancels in the softmax.
    # timm's annotation asks for a class, but it only calls norm_layer(width).
    norm: Any = LayerNorm
    return Block(width, heads, qkv_bias=True, drop_path=drop_path, norm_layer=norm)


def _last_tokens(block: Any, x: Tensor, first: int) -> Tensor:
    """The block's output from token `first` on. Other tokens only give keys and values."""
    attention, asked, width = block.attn, x[:, first:], x.shape[-1]
    h = block.norm1(x)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(h[:, first:], weight[:width], bias[:width])
    k, v = F.linear(h, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
    if attention.fused_attn:
        mixed = F.scaled_dot_product_attention(q, k, v)
    else:
        mixed = (q * attention.scale @ k.transpose(-2, -1)).softmax(-1) @ v
    mixed = mixed.transpose(1, 2).flatten(2)
    asked = asked + attention.proj(mixed)
    return asked + block.mlp(block.norm2(asked))


def unfuse_attention(model: nn.Module) -> None:
    """Lets all blocks compute attention as two matrix products and a softmax.

    In bf16 on a CPU, a forward and backward pass of torch's fused kernel takes two to four times as
    long (benchmarks/attention.py).
    """
    for module in model.modules():
        if isinstance(module, Block):
            attention: Any = module.attn  # timm's annotation says Module
            attention.fused_attn = False


def _head(width: int, size: int, layers: int) -> nn.Module:
    if layers == 1:
        return nn.Linear(width, size)
    return nn.Sequential(nn.Linear(width, HEAD_HIDDEN), nn.GELU(), nn.Linear(HEAD_HIDDEN, size))
