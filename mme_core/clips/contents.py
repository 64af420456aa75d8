"""Computes the targets that the model predicts from a batch of the loader, on the batch's device.

A batch holds, for B clips of n tubelets of h × w patches (a sample: `mme_core.clips.dataset`):

    frames       uint8 [B, 2n, H, W, 3]                  flipped already
    position     int8 [B, n, h, w, K, L, 2]              as stored, not flipped
    shape        int8 [B, n, h, w, K, L, bins]
    moments      float32 [B, n, h, w, 6]
    valid        uint8 [B, n, h, w]                      bit k: trajectory k
    flip         bool [B]
    homography   float32 [B, n, L, 3, 3], origin float32 [B, 2]     where camera motion is stored

or, after a zoom, `displacement` and `hog` (float32, raw) in place of position, shape and moments.
`build_targets` turns it into the targets of the contents that a recipe names. A content is one
function of CONTENTS; nothing here reads back from the device, and all of it compiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mme_core.clips.trajectories import (
    Batch,
    Trajectories,
    first_steps,
    merge_points,
    stored_to_raw,
    travelled,
)
from mme_core.errors import UsageError
from mme_core.spec import TUBELET, TargetSpec
from mme_core.targets import EPSILON, MOMENTS, normalise

NORMS = ("patch", "step", "length", "none")
MERGES = ("none", "mean", "max")


@dataclass(frozen=True)
class TargetSettings:
    """How targets are derived from what a store holds.

    norm     of position: "patch", one mean and deviation of a patch's K·L·2 numbers (the paper);
             "step", per step and axis over the K points (the authors' release; it deletes common
             translation); "length", divided by the trajectory's Σ‖Δp‖; "none", canvas pixels.
             Shape is normalised over a patch's numbers, except with "none".
    floor    smallest deviation (or length) to divide by, canvas pixels; the paper uses 0
    camera   subtracts the camera's motion from the displacement
    length   number of steps to use. Default: all steps in the store
    merge    reduces a patch to one trajectory (Table 7c): "mean" of its points, or "max", the point
             with the largest Σ‖Δp‖. "none" keeps all points
    """

    norm: str = "patch"
    floor: float = 0.0
    camera: bool = False
    length: int | None = None
    merge: str = "none"

    def __post_init__(self) -> None:
        for key, value, choices in (
            ("norm", self.norm, NORMS),
            ("merge", self.merge, MERGES),
        ):
            if value not in choices:
                raise UsageError(f"{key}={value} is not one of {', '.join(choices)}")
        if not self.floor >= 0:
            raise UsageError(f"floor={self.floor} must not be negative")
        if self.norm == "step" and self.merge != "none":
            raise UsageError(
                f"norm=step compares a patch's points, and merge={self.merge} leaves one: choose "
                "another norm=…"
            )


def build_targets(
    batch: Batch, spec: TargetSpec, settings: TargetSettings, contents: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """{content: (target float32 [B, N, D], valid bool [B, N, D] or [B, N, 1])}, all tokens.

    `contents` are names of CONTENTS; N = n·h·w in the order time, row, column. D is laid out as
    [K, L, 2] for position and [K, L, bins] for shape (K = 1 where points are merged).
    """
    raw = stored_to_raw(batch, spec, settings.camera)
    raw = merge_points(first_steps(raw, settings.length), settings.merge)
    built = {name: CONTENTS[name](batch, raw, spec, settings) for name in contents}
    return {
        name: (target.flatten(1, 3), valid.flatten(1, 3)) for name, (target, valid) in built.items()
    }


def content_weights(contents: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """{content: factor} of the names `contents`, by `weights` (1 where not said).

    `trajectory` stands for position and shape. Raises UsageError for an unknown or repeated name.
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


def shuffle_frames(frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shuffles the frames [B, T, H, W, 3] of each clip independently (the paper's Figure 3).

    This ablation removes the order of time from the input. Contents that are computed from frames
    follow the new order. Trajectories keep their order and can no longer be seen in the frames.
    """
    b, t = frames.shape[:2]
    order = torch.rand(b, t, device=frames.device, generator=generator).argsort(1)
    return frames[torch.arange(b, device=frames.device)[:, None], order]


# The contents: (batch, raw trajectories, spec, settings) -> target and validity [B, n, h, w, D]


def _position(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """Where the points go (the paper's position changes)."""
    displacement = raw.displacement
    if settings.norm == "patch":
        target = normalise(displacement, (-3, -2, -1), settings.floor)
    elif settings.norm == "step":
        target = normalise(displacement, (-3,), settings.floor)
    elif settings.norm == "length":
        length = travelled(displacement)[..., None, None]
        target = displacement / (length.clamp_min(settings.floor) + EPSILON)
    else:
        target = displacement
    return target.flatten(-3), _of_points(raw.valid, target).flatten(-3)


def _shape(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG along the trajectories (the paper's shape changes)."""
    target = raw.hog if settings.norm == "none" else normalise(raw.hog, (-3, -2, -1))
    return target.flatten(-3), _of_points(raw.valid, target).flatten(-3)


def _pixel(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """A tubelet's pixels, each channel over its mean and deviation (VideoMAE), as [t, y, x, c]."""
    frames = batch["frames"].float() / 255
    b, t, height, width, c = frames.shape
    p = spec.patch
    grid = frames.reshape(b, t // TUBELET, TUBELET, height // p, p, width // p, p, c)
    patches = grid.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)
    target = normalise(patches, (-2,)).flatten(-2)
    return target, _always(target)


def _hog(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG of the cells of a tubelet's second frame, as [row, column, bin] (MaskFeat; release)."""
    cells = hog_cells(luma(batch["frames"][:, 1::TUBELET]), spec)
    b, n, rows, columns, bins = cells.shape
    m = spec.patch // spec.hog_cell
    grid = cells.reshape(b, n, rows // m, m, columns // m, m, bins)
    target = grid.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5)
    if settings.norm != "none":
        target = normalise(target, (-2, -1))
    return target.flatten(-2), _always(target)


Content = Callable[[Batch, Trajectories, TargetSpec, TargetSettings], tuple[Tensor, Tensor]]

CONTENTS: dict[str, Content] = {
    "position": _position,
    "shape": _shape,
    "pixel": _pixel,
    "hog": _hog,
}
GROUPS = {"trajectory": ("position", "shape")}


def luma(frames: Tensor) -> Tensor:
    """BT.601 luma, whole grey levels, float32 [..., H, W] of uint8 RGB [..., H, W, 3]."""
    red, green, blue = frames.float().unbind(-1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).round()


def hog_cells(luma_BNHW: Tensor, spec: TargetSpec) -> Tensor:
    """HOG of whole cells, as `mme_core.extract.hog` at their centres: [B, n, rows, columns, bins].

    At the crop's border gradients read the border pixel twice, where stage 1 sees the canvas.
    """
    grown = F.pad(luma_BNHW / 255, (1, 1, 1, 1), mode="replicate")
    gx = grown[..., 1:-1, 2:] - grown[..., 1:-1, :-2]
    gy = grown[..., 2:, 1:-1] - grown[..., :-2, 1:-1]
    magnitude = torch.hypot(gx, gy)
    place = torch.atan2(gy, gx) * (spec.hog_bins / torch.pi) - 0.5  # in bins, cyclic
    b, n, height, width = luma_BNHW.shape
    c = spec.hog_cell
    bins = []
    for number in range(spec.hog_bins):
        distance = (place - number).remainder(spec.hog_bins)
        distance = torch.minimum(distance, spec.hog_bins - distance)
        votes = magnitude * (1 - distance).clamp_min(0)
        bins.append(votes.reshape(b, n, height // c, c, width // c, c).sum((3, 5)))
    return torch.stack(bins, dim=-1)


def _of_points(valid: Tensor, target: Tensor) -> Tensor:
    """bool [..., K] as the target's [..., K, L, D]."""
    return valid[..., None, None].expand_as(target)


def _always(target: Tensor) -> Tensor:
    return torch.ones((*target.shape[:4], 1), dtype=torch.bool, device=target.device)


def _one_patch(spec: TargetSpec) -> dict[str, Tensor]:
    """A batch of one clip of one token, all zeros."""
    track = (1, 1, 1, 1, spec.points, spec.length)
    return {
        "frames": torch.zeros(1, TUBELET, spec.patch, spec.patch, 3, dtype=torch.uint8),
        "position": torch.zeros(*track, 2, dtype=torch.int8),
        "shape": torch.zeros(*track, spec.hog_bins, dtype=torch.int8),
        "moments": torch.zeros(1, 1, 1, 1, MOMENTS),
        "valid": torch.zeros(1, 1, 1, 1, dtype=torch.uint8),
        "flip": torch.zeros(1, dtype=torch.bool),
        "homography": torch.eye(3).expand(1, 1, spec.length, 3, 3),
        "origin": torch.zeros(1, 2),
    }
