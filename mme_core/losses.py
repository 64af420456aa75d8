"""The loss of masked motion encoding (the paper's equation 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mme_core.tokens import take_tokens


def masked_loss(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of weighted squared errors over the constant B · M · D, in float32, as a scalar.

    prediction, target [B, M, D]; weight broadcasts to them (0 where a target is invalid; None: 1).
    Because the divisor does not depend on validity, the mean of this loss over equal parts of a
    batch is the loss of the whole: processes and accumulated steps agree with one large batch.
    """
    error = (prediction.float() - target.float()).square()
    if weight is not None:
        error = error * weight.float()
    return error.sum() / prediction.numel()


def reconstruction_loss(
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, tuple[Tensor, Tensor]],
    hidden_BM: Tensor,
    weights: Mapping[str, float],
    *,
    mask_invalid: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the contents' losses on hidden tokens, and each content's own loss.

    predictions  {content: [B, M, D]}, hidden tokens in token order
    targets      {content: (target [B, N, D], validity [B, N, D] or [B, N, 1])}, all tokens
    hidden_BM    token indices of the hidden tokens (`mme_core.tokens.split_tokens`)
    weights      {content: factor}; the contents that are summed
    """
    terms: dict[str, Tensor] = {}
    for name in weights:
        target, valid = targets[name]
        weight = take_tokens(valid, hidden_BM) if mask_invalid else None
        terms[name] = masked_loss(predictions[name], take_tokens(target, hidden_BM), weight)
    total = sum(factor * terms[name] for name, factor in weights.items())
    assert isinstance(total, Tensor)  # `weights` names at least one content
    return total, terms


def visible_loss(
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, tuple[Tensor, Tensor]],
    visible_BV: Tensor,
    distance_BV: Tensor,
    weights: Mapping[str, float],
    *,
    mask_invalid: bool = True,
) -> Tensor:
    """The same sum on visible tokens, where each token counts 1 / √distance.

    A loss on hidden tokens alone leaves visible tokens free to hold what is not theirs; the weight
    falls with the distance to the hidden tokens (V-JEPA 2.1, 2026).

    predictions  {content: [B, V, D]}, visible tokens in the order of visible_BV
    distance_BV  of `mme_core.tokens.distance_to_hidden`
    """
    near = distance_BV.rsqrt()[..., None]
    terms = []
    for name, factor in weights.items():
        target, valid = (take_tokens(part, visible_BV) for part in targets[name])
        weight = near * valid if mask_invalid else near
        terms.append(factor * masked_loss(predictions[name], target, weight))
    return torch.stack(terms).sum()
