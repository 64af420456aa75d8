"""Decodes the trajectories of a batch on its device, flips them and subtracts camera motion.

`mme_core.clips.contents` describes a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mme_core.canvas import grid_points
from mme_core.spec import TargetSpec
from mme_core.targets import decode_displacement, decode_hog

Batch = Mapping[str, Tensor]


class Trajectories(NamedTuple):
    """Raw trajectories of a batch, flipped where their clips are."""

    displacement: Tensor  # float32 [B, n, h, w, K, L, 2], canvas pixels, right and down positive
    hog: Tensor  # float32 [B, n, h, w, K, L, bins]
    valid: Tensor  # bool [B, n, h, w, K]


def stored_to_raw(batch: Batch, spec: TargetSpec, camera: bool = False) -> Trajectories:
    """De-quantises and flips. With `camera`, displacement is the residual Δp − (H(p) − p)."""
    if "displacement" in batch:
        displacement, hog = batch["displacement"], batch["hog"]
    else:
        displacement = decode_displacement(batch["position"], batch["moments"], spec)
        hog = decode_hog(batch["shape"], batch["moments"], spec)
    if camera:
        displacement = _residual(displacement, batch, spec)
    bits = torch.arange(spec.points, device=hog.device)
    valid = (batch["valid"][..., None] >> bits) & 1 == 1
    flip = batch["flip"]
    if none_flipped(flip):
        return Trajectories(displacement, hog, valid)
    mirrored = mirror_columns(displacement, spec, point_axis=-3)
    mirrored = torch.stack([-mirrored[..., 0], mirrored[..., 1]], dim=-1)
    return Trajectories(
        where_clip(flip, mirrored, displacement),
        where_clip(flip, mirror_columns(hog, spec, point_axis=-3).flip(-1), hog),
        where_clip(flip, mirror_columns(valid, spec, point_axis=-1), valid),
    )


def none_flipped(flip_B: Tensor) -> bool:
    """Whether no clip is flipped. False on a GPU, because the host would wait for the answer."""
    return not (flip_B.is_cuda or torch.compiler.is_compiling() or flip_B.any())


def first_steps(raw: Trajectories, length: int | None) -> Trajectories:
    """Keeps the first `length` steps of each trajectory, or all steps for None."""
    return raw._replace(
        displacement=raw.displacement[..., :length, :], hog=raw.hog[..., :length, :]
    )


def merge_points(raw: Trajectories, merge: str) -> Trajectories:
    """Reduces each patch to one trajectory (Table 7c), as `TargetSettings.merge` describes."""
    if merge == "none":
        return raw
    if merge == "mean":
        return Trajectories(
            raw.displacement.mean(-3, keepdim=True),
            raw.hog.mean(-3, keepdim=True),
            raw.valid.all(-1, keepdim=True),
        )
    point = travelled(raw.displacement).argmax(-1, keepdim=True)
    return Trajectories(
        torch.take_along_dim(raw.displacement, point[..., None, None], -3),
        torch.take_along_dim(raw.hog, point[..., None, None], -3),
        torch.take_along_dim(raw.valid, point, -1),
    )


def travelled(displacement: Tensor) -> Tensor:
    """Σ‖Δp‖ of each trajectory: [..., K]."""
    return torch.linalg.vector_norm(displacement, dim=-1).sum(-1)


# What a displacement [..., K, L, 2] is divided by under the norms that subtract no mean.
DIVISORS: dict[str, Callable[[Tensor], Tensor]] = {
    "length": lambda displacement: travelled(displacement)[..., None, None],
    "scale": lambda displacement: displacement.square().mean((-3, -2, -1), keepdim=True).sqrt(),
}


def _residual(displacement: Tensor, batch: Batch, spec: TargetSpec) -> Tensor:
    """Δp − (H(p) − p) at the tracked points, before the flip, where homographies are true."""
    _, _, h, w = displacement.shape[:4]
    start = torch.from_numpy(grid_points(h, w, spec)).to(displacement.device)
    start = start + batch["origin"][:, None, None, None]
    before = displacement.cumsum(-2) - displacement
    points = start[:, None, ..., None, :] + before  # [B, n, h, w, K, L, 2]
    matrix = batch["homography"][:, :, None, None, None]  # [B, n, 1, 1, 1, L, 3, 3]
    # Spelt out: a matrix product would lose the digits that count under autocast.
    moved = (matrix[..., :2] * points[..., None, :]).sum(-1) + matrix[..., 2]
    return displacement - (moved[..., :2] / moved[..., 2:] - points)


def mirror_columns(values: Tensor, spec: TargetSpec, point_axis: int) -> Tensor:
    """Reverses the patch columns (axis 3) and, in each patch, the columns of points."""
    order = torch.arange(spec.points, device=values.device).reshape(spec.grid, spec.grid)
    return values.flip(3).index_select(point_axis, order.flip(1).flatten())


def where_clip(flip_B: Tensor, flipped: Tensor, values: Tensor) -> Tensor:
    """Takes `flipped` for the clips that are flipped, and `values` for the others."""
    return torch.where(flip_B.reshape(-1, *[1] * (values.ndim - 1)), flipped, values)
