"""Contents that are computed from stored descriptors of fixed cells (`mme_core.cells`).

A token counts where at least one of its trajectories is valid, that is, where its raw frames exist.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mme_core import cells
from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import Batch, Trajectories, mirror_columns, where_clip
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec
from mme_core.targets import normalise

# content: the descriptor of `spec.cells` that it is computed from
NEEDS = {"hof": "hof", "mbh": "mbh", "mbh_sampled": "mbh", "mbh_every": "mbh", "hog_every": "hog"}


def cells_needed(contents: Iterable[str]) -> tuple[str, ...]:
    """The descriptors that these contents are computed from, each once."""
    return tuple(dict.fromkeys(NEEDS[name] for name in contents if name in NEEDS))


def hof(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOF of the tubelet's first raw frame, as [K, 1, 9]."""
    return _of_steps(_stored("hof", batch, spec)[..., :1, :], batch, settings)


def mbh(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """MBH of the tubelet's first raw frame, as [K, 1, 2 · bins]."""
    return _of_steps(_stored("mbh", batch, spec)[..., :1, :], batch, settings)


def mbh_sampled(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """MBH of the two sampled frames, as [K, 2, 2 · bins] (Table 6, off)."""
    if spec.length <= spec.stride:
        raise UsageError(
            f"contents=mbh_sampled: the store's spec.length={spec.length} must be above its "
            f"spec.stride={spec.stride}, so that it holds the second sampled frame"
        )
    sampled = _stored("mbh", batch, spec)[..., :: spec.stride, :][..., :2, :]
    return _of_steps(sampled, batch, settings)


def mbh_every(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """MBH of each of the L raw frames, as [K, L, 2 · bins] (Table 6, on)."""
    every = _stored("mbh", batch, spec)[..., : settings.length, :]
    return _of_steps(every, batch, settings)


def hog_every(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG of the cells of each of the L raw frames, as [K, L, bins] (Table 6, on)."""
    every = _stored("hog", batch, spec)[..., : settings.length, :]
    return _of_steps(every, batch, settings)


def _of_steps(values: Tensor, batch: Batch, settings: TargetSettings) -> tuple[Tensor, Tensor]:
    target = values if settings.norm == "none" else normalise(values, (-3, -2, -1))
    tracked = batch["valid"] != 0
    valid = where_clip(batch["flip"], tracked.flip(3), tracked)[..., None]
    return target.flatten(-3), valid


def _stored(name: str, batch: Batch, spec: TargetSpec) -> Tensor:
    """A descriptor [B, n, h, w, K, L, D], flipped where its clip is."""
    if name not in spec.cells:
        raise UsageError(
            f"contents: the cells' {name} is asked for, and the store holds none: make it with "
            f"spec.cells={','.join((*spec.cells, name))}"
        )
    values = batch[cells.codes_name(name)]
    if cells.moments_name(name) in batch:  # after a zoom they are sums already
        values = cells.decode(values, batch[cells.moments_name(name)])
    runs = mirror_columns(values, spec, point_axis=-3).split(cells.mirror_runs(name, spec), -1)
    flipped = torch.cat([run.flip(-1) for run in runs], -1)
    return where_clip(batch["flip"], flipped, values)
