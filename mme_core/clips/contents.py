"""Computes the targets that the model predicts from a batch of the loader, on the batch's device.

A batch holds, for B clips of n tubelets of h × w patches (a sample: `mme_core.clips.dataset`):

    frames       uint8 [B, 2n, H, W, 3]                  flipped already
    position     int8 [B, n, h, w, K, L, 2]              as stored, not flipped
    shape        int8 [B, n, h, w, K, L, bins]
    moments      float32 [B, n, h, w, 6]
    valid        uint8 [B, n, h, w]                      bit k: trajectory k
    flip         bool [B]
    homography   float32 [B, n, L, 3, 3], origin float32 [B, 2]     where camera motion is stored
    cell_NAME    int8 [B, n, h, w, K, L, D], cell_NAME_moments float32 [B, n, h, w, 2]
                                                         descriptors of cells (`mme_core.cells`)

or, after a zoom, `displacement` and `hog` (float32, raw) in place of position, shape and moments,
and float32 `cell_NAME` without moments.
`build_targets` turns it into the targets of the contents that a recipe names. A content is one
function of CONTENTS; nothing here reads back from the device, and all of it compiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mme_core import cells
from mme_core.clips import appearance, cell_contents, motion
from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import (
    Batch,
    Trajectories,
    first_steps,
    merge_points,
    stored_to_raw,
)
from mme_core.errors import UsageError
from mme_core.spec import TUBELET, TargetSpec
from mme_core.targets import MOMENTS

# (batch, raw trajectories, spec, settings) -> target and validity, [B, n, h, w, D]
Content = Callable[[Batch, Trajectories, TargetSpec, TargetSettings], tuple[Tensor, Tensor]]

CONTENTS: dict[str, Content] = {
    "position": motion.position,
    "shape": motion.shape,
    "pixel": appearance.pixel,
    "hog": appearance.hog,
    "flow": motion.flow,
    "hof": cell_contents.hof,
    "mbh": cell_contents.mbh,
    "position_sampled": motion.position_sampled,
    "shape_sampled": motion.shape_sampled,
    "hog_sampled": appearance.hog_sampled,
    "hog_every": cell_contents.hog_every,
    "mbh_sampled": cell_contents.mbh_sampled,
    "mbh_every": cell_contents.mbh_every,
}
GROUPS = {
    "trajectory": ("position", "shape"),
    "trajectory_sampled": ("position_sampled", "shape_sampled"),
}
# Contents that join a tubelet's two sampled frames by what the store holds between them. At another
# speed (`mme_core.clips.speeds`) a clip's second frame is a later one, which these would not reach.
# The others follow raw frames from a tubelet's first one, or are made of the clip's own frames.
OF_STORED_STRIDE = ("position_sampled", "shape_sampled", "mbh_sampled")


def build_targets(
    batch: Batch, spec: TargetSpec, settings: TargetSettings, contents: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """{content: (target float32 [B, N, D], valid bool [B, N, D] or [B, N, 1])}, all tokens.

    `contents` are names of CONTENTS; N = n·h·w in the order time, row, column. D is laid out as
    each function says (K = 1 where points are merged). Raises UsageError where the store does not
    hold what a content needs. Contents of OF_STORED_STRIDE need clips of speed 1.
    """
    raw = stored_to_raw(batch, spec, settings.camera)
    raw = merge_points(first_steps(raw, settings.length), settings.merge)
    built = {name: CONTENTS[name](batch, raw, spec, settings) for name in contents}
    return {
        name: (target.flatten(1, 3), valid.flatten(1, 3)) for name, (target, valid) in built.items()
    }


def content_weights(contents: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """{content: factor} of the names `contents`, by `weights` (1 where not said).

    A name of GROUPS stands for its contents. Raises UsageError for an unknown or repeated name.
    """
    known = [*GROUPS, *CONTENTS]
    for argument, named in (("contents", list(contents)), ("weights", dict(weights))):
        for name in named:
            if name not in known:
                raise UsageError(
                    f"{argument}={named}: '{name}' is not a content; they are {', '.join(known)}"
                )
    result: dict[str, float] = {}
    for group in contents:
        for name in GROUPS.get(group, (group,)):
            if name in result:
                raise UsageError(f"contents={list(contents)} names {name} twice")
            result[name] = float(weights.get(name, weights.get(group, 1.0)))
    for name, weight in weights.items():
        if name not in contents and name not in result:
            raise UsageError(
                f"weights={dict(weights)} names {name}, which contents={list(contents)} lacks"
            )
        if not weight >= 0:
            raise UsageError(f"weights={dict(weights)}: the weight of {name} must not be negative")
    if not result:
        raise UsageError("contents=[] must name at least one")
    return result


def content_sizes(
    contents: Sequence[str], spec: TargetSpec, settings: TargetSettings
) -> dict[str, int]:
    """{content: D}, numbers predicted for a token: `heads` of `build_pretraining_model`.

    Raises UsageError where the store's specification does not fit the settings.
    """
    if settings.length is not None and not 1 <= settings.length <= spec.length:
        raise UsageError(
            f"length={settings.length}: the store's trajectories have {spec.length} steps"
        )
    if settings.camera and spec.camera == "none":
        raise UsageError(
            "camera=True, but the store holds no camera motion: make it with spec.camera=homography"
        )
    built = build_targets(_one_patch(spec), spec, settings, contents)
    return {name: target.shape[-1] for name, (target, _) in built.items()}


def _one_patch(spec: TargetSpec) -> dict[str, Tensor]:
    """A batch of one clip of one token, all zeros."""
    track = (1, 1, 1, 1, spec.points, spec.length)
    stored = {
        array: torch.zeros(*track, cells.bins(name, spec), dtype=torch.int8)
        for name in spec.cells
        for array in [cells.codes_name(name)]
    } | {cells.moments_name(name): torch.zeros(1, 1, 1, 1, cells.MOMENTS) for name in spec.cells}
    return stored | {
        "frames": torch.zeros(1, TUBELET, spec.patch, spec.patch, 3, dtype=torch.uint8),
        "position": torch.zeros(*track, 2, dtype=torch.int8),
        "shape": torch.zeros(*track, spec.hog_bins, dtype=torch.int8),
        "moments": torch.zeros(1, 1, 1, 1, MOMENTS),
        "valid": torch.zeros(1, 1, 1, 1, dtype=torch.uint8),
        "flip": torch.zeros(1, dtype=torch.bool),
        "homography": torch.eye(3).expand(1, 1, spec.length, 3, 3),
        "origin": torch.zeros(1, 2),
    }
