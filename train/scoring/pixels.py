"""Predicted trajectories in canvas pixels, and their error beside simple guesses.

A model predicts normalised positions. Their mean and scale come from the true trajectory of the
same patch, for pictures, or from the visible patches around it, so that the model is not told what
it should predict. With norm.kind=none the predictions are pixels already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mme_core.clips.assembly import assemble
from mme_core.clips.contents import build_targets
from mme_core.clips.settings import NORM_AXES, TargetSettings
from mme_core.clips.trajectories import DIVISORS
from mme_core.targets import EPSILON, mean_and_deviation
from mme_core.tokens import distances, take_tokens
from train.objective.reconstruction import Objective, Question

# Errors of a model, and of guesses that need none
ERRORS = ("val_epe", "epe_zero", "epe_mean", "epe_neighbours")
_FALL = 4  # a visible patch at distance d patches counts with d ** -4


class Moments(NamedTuple):
    """Pixels are normalised · scale + mean; both are [..., K or 1, L or 1, 2 or 1]."""

    scale: Tensor
    mean: Tensor


def moments_of(displacement: Tensor, settings: TargetSettings) -> Moments:
    """Of displacement [..., K, L, 2], by the normalisation of `mme_core.clips.motion`."""
    if settings.norm in NORM_AXES:
        _, mean, deviation = mean_and_deviation(displacement, NORM_AXES[settings.norm])
        return Moments(deviation.clamp_min(settings.floor) + EPSILON, mean)
    if settings.norm in DIVISORS:
        scale = DIVISORS[settings.norm](displacement).clamp_min(settings.floor) + EPSILON
        return Moments(scale, torch.zeros_like(scale))
    one = torch.ones_like(displacement[..., :1, :1, :1])
    return Moments(one, torch.zeros_like(one))


def to_pixels(
    normalised: Tensor, displacement: Tensor, settings: TargetSettings, points: int
) -> Tensor:
    """Normalised positions [..., D] in pixels, from the moments of the true `displacement`.

    Both are [..., D] with D = K · L · 2.
    """
    shape = (*displacement.shape[:-1], settings.trajectories(points), -1, 2)
    scale, mean = moments_of(displacement.reshape(shape), settings)
    return (normalised.reshape(shape) * scale + mean).reshape(displacement.shape)


def end_point_errors(
    objective: Objective, batch: Mapping[str, Tensor], question: Question, predicted: Tensor
) -> Tensor:
    """Sums over the valid hidden trajectories of a batch, float64 [5]: those of ERRORS, and 1.

    predicted  [B, M, D], normalised positions of the hidden tokens

    An error is the distance between the ends of the predicted and of the true trajectory, pixels.
    The guesses are: no motion; the mean trajectory of the clip's visible patches; the mean of the
    visible patches with weights that fall with the distance (in patches and tubelets).
    """
    settings = dataclasses.replace(objective.settings, norm="none")
    batch = assemble(batch, objective.spec)
    target, valid = build_targets(batch, objective.spec, settings, ["position"])["position"]
    kept = settings.trajectories(objective.spec.points)
    true = target.unflatten(-1, (kept, -1, 2))  # [B, N, K, L, 2]
    counts = valid.unflatten(-1, (kept, -1, 2)).all(-1).all(-1)  # [B, N, K]
    near, all_ = _weights(question, counts.all(-1), objective.grid)

    def hidden(values: Tensor) -> Tensor:
        return take_tokens(values.flatten(2), question.hidden).unflatten(-1, values.shape[2:])

    def guessed(values: Tensor, weights: Tensor) -> Tensor:
        """Values [B, N, ...] of the visible patches, averaged for each hidden one."""
        flat = take_tokens(values.flatten(2), question.visible)
        return (weights @ flat).unflatten(-1, values.shape[2:])

    scale, mean = moments_of(true, objective.settings)
    normalised = predicted.float().unflatten(-1, (kept, -1, 2))
    ends = {
        "val_epe": normalised * guessed(scale, near) + guessed(mean, near),
        "epe_zero": torch.zeros_like(normalised),
        "epe_mean": guessed(true, all_),
        "epe_neighbours": guessed(true, near),
    }
    weight, exact = hidden(counts[..., None])[..., 0].double(), hidden(true).sum(-2)
    errors = [(ends[name].sum(-2) - exact).norm(dim=-1).double() for name in ERRORS]
    return torch.stack([(error * weight).sum() for error in errors] + [weight.sum()])


def _weights(
    question: Question, counts: Tensor, grid: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Weights [B, M, V] of the visible tokens for each hidden one: by distance, and equal.

    counts  bool [B, N], tokens whose trajectories are valid; the others weigh nothing
    grid    tubelets, rows, columns
    """
    distance = distances(question.hidden, question.visible, grid)
    valid = counts.gather(1, question.visible)[:, None].float()
    return _shares(valid * distance.pow(-_FALL)), _shares(valid.expand_as(distance))


def _shares(weights: Tensor) -> Tensor:
    whole = weights.sum(-1, keepdim=True)
    return weights / torch.where(whole > 0, whole, 1)
