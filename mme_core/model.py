"""VideoMAE's vision transformer with the decoder and heads of masked motion encoding.

The parts are in `mme_core.transformer`; tokens and masks are described in `mme_core.tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mme_core.errors import UsageError
from mme_core.tokens import count_hidden, split_tokens
from mme_core.transformer import Decoder, Encoder, LayerNorm

DECODERS = ("joint", "separate")  # one for all contents, or one for each
HEAD_LAYERS = (1, 2)


class PretrainingModel(nn.Module):
    """Encoder on the visible tokens, decoder(s) on all, a head for each content.

    decoders  one entry, `joint`, or one for each content
    depths    encoder blocks (1: the first) from whose tokens `predict_depths` also predicts
    """

    def __init__(
        self, encoder: Encoder, decoders: Mapping[str, Decoder], depths: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoders = nn.ModuleDict(decoders)
        self.depths = tuple(depths)

    def forward(
        self, clip: Tensor, mask_BN: Tensor, hidden: int | None = None
    ) -> dict[str, Tensor]:
        """Predictions {content: [B, M, D]} for the M hidden tokens of each clip, in token order.

        clip [B, 3, T, H, W] is normalised; mask bool [B, N], True = hidden. `hidden` = M, where
        known, saves a wait for the device and keeps torch.compile in one graph.
        """
        self._check(clip, mask_BN)
        hidden = count_hidden(mask_BN) if hidden is None else hidden
        visible_BV, hidden_BM = split_tokens(mask_BN, hidden)
        return self._decode(self.encoder(clip, visible_BV), visible_BV, hidden_BM)

    def predict(
        self, patches_BVD: Tensor, visible_BV: Tensor, hidden_BM: Tensor
    ) -> dict[str, Tensor]:
        """What `forward` returns, from the visible patches, normalised, and the indices of both
        kinds of tokens (`mme_core.tokens.split_tokens`).
        """
        encoded = self.encoder.encode_patches(patches_BVD, visible_BV)
        return self._decode(encoded, visible_BV, hidden_BM)

    def predict_depths(
        self,
        patches_BVD: Tensor,
        visible_BV: Tensor,
        hidden_BM: Tensor,
        seen_too: bool = False,
    ) -> list[dict[str, Tensor]]:
        """Predictions from the encoder's tokens at each of `depths`; the last are what `predict`
        returns.

        seen_too  predict visible tokens as well: [B, V + M, D], the visible ones first
        """
        encoded = self.encoder.encode_depths(patches_BVD, visible_BV, self.depths)
        return [self._decode(tokens, visible_BV, hidden_BM, seen_too) for tokens in encoded]

    def _decode(
        self, encoded: Tensor, visible_BV: Tensor, hidden_BM: Tensor, seen_too: bool = False
    ) -> dict[str, Tensor]:
        predictions: dict[str, Tensor] = {}
        for decoder in self.decoders.values():
            predictions.update(decoder(encoded, visible_BV, hidden_BM, seen_too))
        return predictions

    def encode(
        self, clip: Tensor, mask_BN: Tensor | None = None, hidden: int | None = None
    ) -> Tensor:
        """Visible tokens [B, V, width] after the encoder's last norm; without a mask, all."""
        if mask_BN is None:
            return self.encoder(clip)
        self._check(clip, mask_BN)
        hidden = count_hidden(mask_BN) if hidden is None else hidden
        return self.encoder(clip, split_tokens(mask_BN, hidden)[0])

    def _check(self, clip: Tensor, mask_BN: Tensor) -> None:
        if mask_BN.shape != (len(clip), self.encoder.tokens):
            raise UsageError(
                f"the mask is {list(mask_BN.shape)}, and must be [{len(clip)}, "
                f"{self.encoder.tokens}]: one row for each clip, one value for each token"
            )
        if mask_BN.dtype != torch.bool:
            raise UsageError(f"the mask is {mask_BN.dtype}, and must be bool: use mask.bool()")


class Classifier(nn.Module):
    """Encoder on all tokens, mean, LayerNorm, linear head."""

    def __init__(self, encoder: Encoder, num_classes: int, fc_dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.fc_norm = LayerNorm(encoder.width)
        self.fc_dropout = nn.Dropout(fc_dropout)
        self.head = nn.Linear(encoder.width, num_classes)

    def features(self, clip: Tensor) -> Tensor:
        """Pooled features [B, width] of the clip [B, 3, T, H, W]."""
        return self.fc_norm(self.encoder(clip).mean(1))

    def forward(self, clip: Tensor) -> Tensor:
        """Class scores [B, num_classes] of the clip [B, 3, T, H, W]."""
        return self.head(self.fc_dropout(self.features(clip)))


def build_pretraining_model(
    size: str,
    *,
    decoder: str = "joint",
    decoder_depth: int = 1,
    decoder_width: int = 384,
    decoder_heads: int = 6,
    heads: Mapping[str, int] | None = None,
    head_layers: int = 1,
    frames: int = 16,
    image_size: int = 224,
    patch: int = 16,
    depth: int | None = None,
    residual: torch.dtype | None = None,
    depths: Sequence[int] = (),
) -> PretrainingModel:
    """A pre-training model with VideoMAE's initial weights.

    size          a name of SIZES; `depth` replaces its number of encoder blocks
    decoder       "joint": one decoder, a head for each content; "separate": a decoder for each
    heads         {content: numbers predicted for a token}; default the paper's position
                  (K·L·2 = 48) and shape (K·L·9 = 216)
    head_layers   1, or 2 for Linear–GELU–Linear
    residual      dtype of the tokens between blocks, such as torch.bfloat16, which needs autocast.
                  Default: float32 under autocast, too
    depths        encoder blocks, as (4, 8), from whose tokens `predict_depths` also predicts. No
                  weights are added.
    Raises UsageError for a value out of range.
    """
    heads = {"position": 48, "shape": 216} if heads is None else heads
    _check_decoder(decoder, decoder_depth, decoder_width, decoder_heads, head_layers)
    groups = (
        {"joint": heads} if decoder == "joint" else {name: {name: heads[name]} for name in heads}
    )
    encoder = Encoder(
        size,
        frames=frames,
        image_size=image_size,
        patch=patch,
        depth=depth,
        residual=residual,
    )
    blocks = len(encoder.blocks)
    if list(depths) != sorted(set(depths) & set(range(1, blocks))):
        raise UsageError(
            f"depths={list(depths)} must be ascending numbers of blocks before the encoder's last, "
            f"which is block {blocks}"
        )
    build_decoder = partial(
        Decoder,
        encoder.width,
        encoder.tokens,
        width=decoder_width,
        depth=decoder_depth,
        heads=decoder_heads,
        head_layers=head_layers,
        residual=residual,
    )
    decoders = {name: build_decoder(outputs=outputs) for name, outputs in groups.items()}
    model = PretrainingModel(encoder, decoders, depths)
    _draw_weights(model)
    return model


def _check_decoder(kind: str, depth: int, width: int, heads: int, head_layers: int) -> None:
    if head_layers not in HEAD_LAYERS:
        raise UsageError(
            f"head_layers={head_layers} is not one of {', '.join(map(str, HEAD_LAYERS))}"
        )
    for name, value in (("depth", depth), ("width", width), ("heads", heads)):
        if value < 1:
            raise UsageError(f"decoder_{name}={value} must be at least 1")
    if width % heads:
        raise UsageError(f"decoder_width={width} must be a multiple of decoder_heads={heads}")
    if kind not in DECODERS:
        raise UsageError(f"decoder={kind} is not one of {', '.join(DECODERS)}")


def _draw_weights(model: PretrainingModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Decoder):
            nn.init.trunc_normal_(module.mask_token, std=0.02)


def build_classifier(
    size: str,
    num_classes: int,
    *,
    frames: int = 16,
    image_size: int = 224,
    patch: int = 16,
    depth: int | None = None,
    drop_path: float = 0.0,
    fc_dropout: float = 0.0,
    residual: torch.dtype | None = None,
) -> Classifier:
    """A classifier with VideoMAE's initial weights for fine-tuning.

    drop_path grows linearly from 0 at the first block to its value at the last. `encoder.*` takes
    the pre-trained `encoder.*` except the last norm, whose place fc_norm takes. Raises UsageError
    for a value out of range.
    """
    if num_classes < 1:
        raise UsageError(f"num_classes={num_classes} must be at least 1")
    encoder = Encoder(
        size,
        frames=frames,
        image_size=image_size,
        patch=patch,
        depth=depth,
        drop_path=drop_path,
        norm=False,
        residual=residual,
    )
    model = Classifier(encoder, num_classes, fc_dropout)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        model.head.weight.mul_(0.001)  # the first predictions are uniform
    return model
