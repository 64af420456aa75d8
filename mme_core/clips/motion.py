"""Contents that are computed from the stored trajectories: where points go, and HOG around them.

The *sampled* ones use the tubelet's two sampled frames alone (the paper's Table 6, interpolation
off): points move from the first to the second in one step.
"""

from __future__ import annotations

from torch import Tensor

from mme_core.clips.settings import NORM_AXES, TargetSettings
from mme_core.clips.trajectories import DIVISORS, Batch, Trajectories
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec
from mme_core.targets import EPSILON, normalise


def position(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """Where the points go (the paper's position changes), as [K, L, 2]."""
    return _of_displacement(raw.displacement, raw.valid, settings)


def position_sampled(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """The points' displacement from the first sampled frame to the second, as [K, 1, 2]."""
    _check_steps("position_sampled", spec.stride, raw, spec)
    whole = raw.displacement[..., : spec.stride, :].sum(-2, keepdim=True)
    return _of_displacement(whole, raw.valid, settings)


def flow(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """The flow from the tubelet's first raw frame to the next, at the K points, as [K, 1, 2].

    A patch's 16 × 16 flow vectors are reduced to one for each 8 × 8 cell: the one in its centre,
    which is the first step of the cell's trajectory.
    """
    return _of_displacement(raw.displacement[..., :1, :], raw.valid, settings)


def shape(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG along the trajectories (the paper's shape changes), as [K, L, bins]."""
    return _of_hog(raw.hog, raw.valid, settings)


def shape_sampled(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG around the points in the two sampled frames, as [K, 2, bins]."""
    _check_steps("shape_sampled", spec.stride + 1, raw, spec)
    return _of_hog(raw.hog[..., :: spec.stride, :][..., :2, :], raw.valid, settings)


def _of_displacement(
    displacement: Tensor, valid: Tensor, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """[..., K, steps, 2] normalised as the settings say, and what of it counts."""
    if settings.norm in NORM_AXES:
        target = normalise(displacement, NORM_AXES[settings.norm], settings.floor)
    elif settings.norm in DIVISORS:
        divisor = DIVISORS[settings.norm](displacement)
        target = displacement / (divisor.clamp_min(settings.floor) + EPSILON)
    else:
        target = displacement
    return target.flatten(-3), _of_points(valid, target).flatten(-3)


def _of_hog(hog: Tensor, valid: Tensor, settings: TargetSettings) -> tuple[Tensor, Tensor]:
    target = hog if settings.norm == "none" else normalise(hog, (-3, -2, -1))
    return target.flatten(-3), _of_points(valid, target).flatten(-3)


def _of_points(valid: Tensor, target: Tensor) -> Tensor:
    """bool [..., K] as the target's [..., K, L, D]."""
    return valid[..., None, None].expand_as(target)


def _check_steps(content: str, needed: int, raw: Trajectories, spec: TargetSpec) -> None:
    steps = raw.displacement.shape[-2]
    if steps < needed:
        raise UsageError(
            f"contents={content}: with spec.stride={spec.stride} it needs trajectories of at least "
            f"length={needed}, and these have {steps}"
        )
