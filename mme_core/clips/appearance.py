"""Contents that are computed from a batch's frames: pixels and HOG of whole cells."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import Batch, Trajectories
from mme_core.errors import UsageError
from mme_core.spec import TUBELET, TargetSpec
from mme_core.targets import normalise


def pixel(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """A tubelet's pixels, each channel over its mean and deviation (VideoMAE), as [t, y, x, c]."""
    frames = batch["frames"].float() / 255
    target = normalise(_gather(frames, TUBELET, spec.patch), (-2,)).flatten(-2)
    return target, always_valid(target)


def hog(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG of the cells of a tubelet's second frame, as [row, column, bin] (MaskFeat; release)."""
    _check_cells("hog", spec)
    return _hog_of(batch["frames"][:, 1::TUBELET], 1, spec, settings)


def hog_sampled(
    batch: Batch, raw: Trajectories, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    """HOG of the cells of both sampled frames, as [frame, row, column, bin] (Table 6, off)."""
    _check_cells("hog_sampled", spec)
    return _hog_of(batch["frames"], TUBELET, spec, settings)


def _check_cells(content: str, spec: TargetSpec) -> None:
    if spec.patch % spec.hog_cell:
        raise UsageError(
            f"contents={content} needs cells that tile a patch: the store has "
            f"spec.hog_cell={spec.hog_cell} and spec.patch={spec.patch}; make one with "
            f"spec.hog_cell={spec.patch // spec.grid}"
        )


def _hog_of(
    frames: Tensor, per_tubelet: int, spec: TargetSpec, settings: TargetSettings
) -> tuple[Tensor, Tensor]:
    cells = hog_cells(luma(frames), spec)
    target = _gather(cells, per_tubelet, spec.patch // spec.hog_cell)
    if settings.norm != "none":
        target = normalise(target, (-2, -1))
    return target.flatten(-2), always_valid(target)


def _gather(values: Tensor, times: int, side: int) -> Tensor:
    """[B, n·times, h·side, w·side, C] as patches: [B, n, h, w, times·side·side, C]."""
    pattern = "b (n t) (h y) (w x) c -> b n h w (t y x) c"
    return rearrange(values, pattern, t=times, y=side, x=side)


def always_valid(target: Tensor) -> Tensor:
    """bool [B, n, h, w, 1], all True, of a target [B, n, h, w, ...]."""
    return torch.ones((*target.shape[:4], 1), dtype=torch.bool, device=target.device)


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


def shuffle_frames(frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shuffles the frames [B, T, H, W, 3] of each clip independently (the paper's Figure 3).

    This ablation removes the order of time from the input. Contents that are computed from frames
    follow the new order. Trajectories keep their order and can no longer be seen in the frames.
    """
    b, t = frames.shape[:2]
    order = torch.rand(b, t, device=frames.device, generator=generator).argsort(1)
    return frames[torch.arange(b, device=frames.device)[:, None], order]
