"""The arithmetic of the model, counted as the paper's Table 7f counts it."""

from __future__ import annotations

from torch import nn

from mme_core.model import Classifier, PretrainingModel
from mme_core.transformer import Decoder, Encoder


def pretraining_flops(model: PretrainingModel, hidden: int) -> int:
    """FLOPs of the forward pass of one clip, 2 for a multiply–add. `hidden`: number of tokens.

    All patches are embedded, and all tokens pass every block of a decoder, for each depth of the
    encoder that is asked. The model skips a few per cent of that, which changes no prediction.
    """
    encoder = model.encoder
    tokens, visible = encoder.tokens, encoder.tokens - hidden
    passes = len(model.depths) + 1  # of each decoder
    total = _embedding(encoder) + _blocks(encoder.blocks, visible, encoder.width)
    for decoder in model.decoders.values():
        assert isinstance(decoder, Decoder)
        width = decoder.embed.out_features
        once = visible * _weights(decoder.embed) + hidden * _weights(decoder.heads)
        total += passes * (once + _blocks(decoder.blocks, tokens, width))
    return 2 * total


def classifier_flops(model: Classifier) -> int:
    """FLOPs of the forward pass of one clip, 2 for a multiply–add."""
    encoder = model.encoder
    blocks = _blocks(encoder.blocks, encoder.tokens, encoder.width)
    return 2 * (_embedding(encoder) + blocks + _weights(model.head))


def _embedding(encoder: Encoder) -> int:
    return encoder.tokens * _weights(encoder.patch_embed)


def _blocks(blocks: nn.ModuleList, tokens: int, width: int) -> int:
    """Products with the weights, and of the attention: q kᵀ and its product with v."""
    return tokens * _weights(blocks) + len(blocks) * 2 * tokens**2 * width


def _weights(module: nn.Module) -> int:
    """Numbers in the module's matrices; each is one multiply–add for a token."""
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)
