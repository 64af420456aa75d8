"""Turns coded batches (`mme_core.clips.coded`) into batches of samples, on any device.

`assemble` does for a whole batch what depends on its pixels and numbers: zoom, and masks that need
the motion. It reads nothing back from the device, its shapes depend on the batch's shapes alone,
and it compiles. Resizing and reading a grid are linear along each axis, so a zoom is two products
with a matrix for each clip.

Names of axes: B clips, n tubelets, h and w patches, K points of a patch (row by row), L steps.
"""

from __future__ import annotations

import math

import cv2
import torch
from einops import rearrange
from torch import Tensor

from mme_core import cells
from mme_core.clips.trajectories import Batch, stored_to_raw
from mme_core.spec import CELLS, TUBELET, TargetSpec
from mme_core.targets import decode_displacement, decode_hog

# What a zoom takes out of a batch, beside what it replaces.
_CODED = ("view", "position", "shape", "moments", *map(cells.moments_name, CELLS))

CUBIC = -0.75  # the free number of the cubic filter; OpenCV's


@torch.no_grad()
def assemble(batch: Batch, spec: TargetSpec) -> dict[str, Tensor]:
    """Returns the batch of samples (`mme_core.clips.contents`) of a coded batch.

    A batch of samples is returned as it is. With zoom, frames are within one grey level of OpenCV's
    resize (on a CPU they are equal, unless compiled).
    """
    samples = dict(batch)
    if "view" in samples:
        zoomed = _zoomed(samples, spec)
        samples = {name: value for name, value in samples.items() if name not in _CODED} | zoomed
    if "order" in samples:
        samples["mask"] = _motion_mask(samples, spec)
        del samples["order"], samples["picks"]
    return samples


def _side(batch: Batch) -> int:
    """Returns the model's h = w, read from the shape of the mask or of what it is made from."""
    if "order" in batch:
        return math.isqrt(batch["order"].shape[1])
    return math.isqrt(batch["mask"].shape[1] // batch["valid"].shape[1])


def _zoomed(batch: Batch, spec: TargetSpec) -> dict[str, Tensor]:
    view, side = batch["view"], _side(batch)
    size = view[:, 2]
    scale = side / size.float()
    displacement = decode_displacement(batch["position"], batch["moments"], spec)
    displacement = displacement * scale[:, None, None, None, None, None, None]
    hog = decode_hog(batch["shape"], batch["moments"], spec)
    fields = {"displacement": displacement, "hog": hog} | _grown_cells(batch, spec, scale)
    bits = torch.arange(spec.points, device=view.device)
    invalid = (batch["valid"][..., None] >> bits) & 1 == 0  # [B, n, h, w, K]
    taps = zoom_taps(view, side, spec.grid, batch["valid"].shape[2])
    zoomed = {name: zoom_field(values, taps, spec.grid) for name, values in fields.items()}
    spoilt = zoom_field(invalid.float()[..., None, None], taps, spec.grid)[..., 0, 0]
    zoomed |= {
        "frames": zoom_frames(batch["frames"], size, side * spec.patch, spec.patch),
        # A point is valid where all points that it reads are.
        "valid": ((spoilt == 0) * (1 << bits)).sum(-1).to(torch.uint8),
    }
    if "homography" in batch:
        zoomed["homography"] = zoom_homography(batch["homography"], view, side, spec.patch)
        zoomed["origin"] = torch.zeros(len(view), 2, device=view.device)
    return zoomed


def _grown_cells(batch: Batch, spec: TargetSpec, scale_B: Tensor) -> dict[str, Tensor]:
    """Returns the descriptors of a batch's cells as sums in the enlarged image, by batch name."""
    grown = {}
    for name, sums in cells.decode_all(batch, spec.cells).items():
        grows = torch.arange(sums.shape[-1], device=sums.device) < cells.growing(name)
        factor = torch.where(grows, scale_B[:, None], 1)  # [B, D]
        grown[cells.codes_name(name)] = sums * factor[:, None, None, None, None, None]
    return grown


def zoom_frames(frames: Tensor, size: Tensor, out: int, patch: int) -> Tensor:
    """Resizes uint8 [B, T, S, S, 3] to [B, T, out, out, 3]: area filter down, cubic up.

    size  int64 [B], patches: the upper left patch · size pixels of clip b are resized
    """
    if frames.device.type == "cpu" and not torch.compiler.is_compiling():
        return _resize_on_cpu(frames, size, out, patch)
    weights = _filter(size * patch, out, frames.shape[2])
    # Halves hold grey levels exactly and weights to 2⁻¹²; CPUs are slow with them.
    dtype = torch.float32 if frames.device.type == "cpu" else torch.float16
    weights = weights.to(dtype)
    planes = frames.permute(0, 4, 1, 2, 3).to(dtype)  # [B, 3, T, S, S]
    planes = planes.flatten(1, 3) @ weights.mT  # [B, 3·T·S, out]
    planes = planes.unflatten(1, (3 * frames.shape[1], -1))
    planes = weights[:, None] @ planes  # [B, 3·T, out, out]
    levels = planes.float().round().clamp(0, 255).to(torch.uint8)
    return levels.unflatten(1, (3, -1)).permute(0, 2, 3, 4, 1)


def _resize_on_cpu(frames: Tensor, size: Tensor, out: int, patch: int) -> Tensor:
    resized = frames.new_empty(*frames.shape[:2], out, out, 3)
    for clip, target, patches in zip(frames.numpy(), resized.numpy(), size.tolist()):
        side = patches * patch
        method = cv2.INTER_AREA if side > out else cv2.INTER_CUBIC
        for image, place in zip(clip, target):
            cv2.resize(image[:side, :side], (out, out), dst=place, interpolation=method)
    return resized


def _filter(side_B: Tensor, out: int, length: int) -> Tensor:
    """Weights float32 [B, out, length] that resize the first `side` samples to `out` samples."""
    scale = side_B.float()[:, None, None] / out
    point = torch.arange(out, device=side_B.device)[:, None]
    sample = torch.arange(length, device=side_B.device)
    low, high = point * scale, (point + 1) * scale  # [B, out, 1]
    overlap = torch.minimum(high, sample + 1) - torch.maximum(low, sample)
    area = overlap.clamp_min(0) / scale
    centre = (point + 0.5) * scale - 0.5
    first = centre.floor()
    last = (side_B - 1)[:, None, None]
    cubic = torch.zeros_like(area)
    for tap in (-1, 0, 1, 2):  # the border's sample is repeated
        at = (first + tap).clamp_min(0).minimum(last)
        cubic = cubic + (sample == at) * _cubic((centre - first - tap).abs())
    return torch.where(scale > 1, area, cubic)


def _cubic(distance: Tensor) -> Tensor:
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, far)


def zoom_field(values: Tensor, taps: tuple[Tensor, Tensor], grid: int) -> Tensor:
    """Resamples numbers that belong to points: the view's patches as the model's patches.

    values  float32 [B, n, C + 2, C + 2, K, L, D], K = grid², of a coded batch
    taps    of `zoom_taps`
    Returns float32 [B, n, out, out, K, L, D].
    """
    rows, columns = taps
    points = {"y": grid, "x": grid}  # of a patch
    field = rearrange(values, "b n h w (y x) l d -> b n (h y) (w x l d)", **points)
    field = rows[:, None] @ field  # [B, n, out·grid, patches·grid·L·D]
    field = columns[:, None, None] @ field.unflatten(3, (columns.shape[2], -1))
    pattern = "b n (h y) (w x) (l d) -> b n h w (y x) l d"
    return rearrange(field, pattern, l=values.shape[5], **points)


def zoom_taps(view: Tensor, out: int, grid: int, patches: int) -> tuple[Tensor, Tensor]:
    """Weights float32 [B, out·grid, patches·grid] of a zoom's rows and columns of points.

    view     int64 [B, 5] of a coded batch, whose view begins at patch (1, 1) of C + 2 = `patches`
    They read the stored grid bilinearly at the points of the model's grid (half-pixel centres).
    Beyond the view's edge they read the canvas, beyond the canvas its border.
    """
    top, left, size, height, width = view.unbind(1)
    rows = _taps(size, top > 0, top + size < height, grid, out, patches)
    columns = _taps(size, left > 0, left + size < width, grid, out, patches)
    return rows, columns


def _taps(
    size_B: Tensor, before_B: Tensor, after_B: Tensor, grid: int, out: int, patches: int
) -> Tensor:
    """Weights float32 [B, out·grid, patches·grid] along one axis.

    before, after  whether the canvas goes on beyond the view
    """
    points = torch.arange(out * grid, device=size_B.device)
    # In units of 1 / (2 · out) of the grid's step, counted from the view's first point: a sum of
    # whole numbers is the same on every device, and a point that is read exactly has weight 1.
    unit = 2 * out
    place = (2 * points + 1) * size_B[:, None] - out
    lowest = -grid * before_B.long()
    highest = (size_B + after_B.long()) * grid - 1
    place = place.maximum(lowest[:, None] * unit).minimum(highest[:, None] * unit)
    low = place.div(unit, rounding_mode="floor")
    share = ((place - low * unit).float() / unit)[..., None]
    high = (low + 1).minimum(highest[:, None])
    sample = torch.arange(patches * grid, device=size_B.device) - grid
    return (sample == low[..., None]) * (1 - share) + (sample == high[..., None]) * share


def zoom_homography(homography: Tensor, view: Tensor, out: int, patch: int) -> Tensor:
    """Homographies [B, ..., 3, 3] of canvas pixels as homographies of the zoomed crop's pixels."""
    view = view.double()
    scale = out / view[:, 2]
    # Pixel centres are at integers: x' + 1/2 = scale · (x - left + 1/2).
    x = scale * (0.5 - view[:, 1] * patch) - 0.5
    y = scale * (0.5 - view[:, 0] * patch) - 0.5
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    there = torch.stack([scale, zero, x, zero, scale, y, zero, zero, one], -1)
    back = torch.stack([1 / scale, zero, -x / scale, zero, 1 / scale, -y / scale, zero, zero, one])
    middle = (1,) * (homography.ndim - 3)
    there = there.reshape(-1, *middle, 3, 3)
    back = back.mT.reshape(-1, *middle, 3, 3)
    return (there @ homography.double() @ back).float()


def _motion_mask(batch: Batch, spec: TargetSpec) -> Tensor:
    """bool [B, n·h·w] of `mme_core.masking.motion_tube_mask`, from the clips' own motion."""
    raw = stored_to_raw(batch, spec, camera="homography" in batch)
    motion = raw.displacement.norm(dim=-1).mean((1, 4, 5)).flatten(1)  # [B, h·w]
    order, picks = batch["order"], batch["picks"]
    ranked = order.gather(1, motion.gather(1, order).argsort(descending=True, stable=True))
    visible = ranked.gather(1, picks)
    mask = torch.ones_like(order, dtype=torch.bool).scatter(1, visible, False)
    return mask.repeat(1, batch["frames"].shape[1] // TUBELET)
