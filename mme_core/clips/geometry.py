"""The geometry of a pre-training sample: crops by whole patches, the flip, the zoom, on arrays.

A crop is a slice, so it is exact on the stored targets. The flip mirrors the frames here; the
targets are flipped where they are de-quantised, in `mme_core.clips.contents`. A zoom (a crop
of c × c patches shown to the model as m × m) resamples what it must.

Names of axes: n tubelets, h and w patches, K points of a patch (row by row), L steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class View:
    """A square crop of the canvas, in patches; `flip` mirrors it left to right afterwards."""

    top: int
    left: int
    size: int
    flip: bool = False


def draw_view(
    rng: np.random.Generator, hp: int, wp: int, sizes: tuple[int, int], flip: bool
) -> View:
    """A random crop of a canvas of hp × wp patches.

    Its side is uniform in sizes[0] … sizes[1] (as far as the canvas has room), its place uniform,
    and it is flipped in half of the draws where `flip` is set.
    """
    size = int(rng.integers(sizes[0], min(sizes[1], hp, wp) + 1))
    top, left = int(rng.integers(hp - size + 1)), int(rng.integers(wp - size + 1))
    mirrored = bool(rng.integers(2))  # drawn in any case: switching it keeps the other draws
    return View(top, left, size, flip and mirrored)


def centre_view(hp: int, wp: int, size: int) -> View:
    """The middle crop, not flipped."""
    return View((hp - size) // 2, (wp - size) // 2, size)


def crop_patches(array: np.ndarray, view: View) -> np.ndarray:
    """[n, ≥hp, ≥wp, …] → the view's patches [n, size, size, …], contiguous."""
    rows = slice(view.top, view.top + view.size)
    columns = slice(view.left, view.left + view.size)
    return np.ascontiguousarray(array[:, rows, columns])


def with_border(view: View, hp: int, wp: int) -> tuple[slice, slice, View]:
    """The rows and columns of the canvas that a zoom of the view reads, and the view in them."""
    top, left = max(view.top - 1, 0), max(view.left - 1, 0)
    rows = slice(top, min(view.top + view.size + 1, hp))
    columns = slice(left, min(view.left + view.size + 1, wp))
    return rows, columns, View(view.top - top, view.left - left, view.size, view.flip)


def crop_image(canvas: np.ndarray, view: View, patch: int, out: np.ndarray) -> None:
    """Writes the view of a canvas, uint8 [H, W, 3], into `out`, uint8 [S, S, 3].

    Where S is not the view's side the crop is resized: area filter down, cubic up.
    """
    top, left, side = view.top * patch, view.left * patch, view.size * patch
    crop = canvas[top : top + side, left : left + side]
    if side != len(out):
        method = cv2.INTER_AREA if side > len(out) else cv2.INTER_CUBIC
        crop = cv2.resize(crop, (len(out), len(out)), interpolation=method)
    if view.flip:
        cv2.flip(crop, 1, dst=out)
    else:
        out[:] = crop


def zoom_field(values: np.ndarray, view: View, out: int, grid: int) -> np.ndarray:
    """Resamples numbers that belong to points: the view's patches as `out` × `out` patches.

    values: float32 [n, hp, wp, K, …] of a whole canvas, K = grid². Returns float32
    [n, out, out, K, …]: the stored grid read bilinearly at the points of the model's grid
    (half-pixel centres). Beyond the view's edge it reads the canvas, beyond the canvas its border.
    """
    n, hp, wp, K, *rest = values.shape
    rows = _taps(view.top * grid, view.size * grid, hp * grid, out * grid)
    columns = _taps(view.left * grid, view.size * grid, wp * grid, out * grid)
    field = values.reshape(n, hp, wp, grid, grid, -1).transpose(0, 1, 3, 2, 4, 5)
    field = field.reshape(n, hp * grid, -1)
    field = rows @ field  # [n, out·grid, wp·grid·C]
    field = columns @ field.reshape(n, out * grid, wp * grid, -1)
    field = field.reshape(n, out, grid, out, grid, -1).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(field).reshape(n, out, out, K, *rest)


def zoom_valid(valid: np.ndarray, view: View, out: int, grid: int) -> np.ndarray:
    """bool [n, hp, wp, K] → bool [n, out, out, K]: whether all points read are valid."""
    read = zoom_field((~valid).astype(np.float32), view, out, grid)
    return read == 0


def zoom_homography(homography: np.ndarray, view: View, out: int, patch: int) -> np.ndarray:
    """Homographies [..., 3, 3] of canvas pixels as homographies of the zoomed crop's pixels."""
    scale = out / view.size
    # Pixel centres are at integers: x' + 1/2 = scale · (x - left + 1/2).
    shift_x = scale * (0.5 - view.left * patch) - 0.5
    shift_y = scale * (0.5 - view.top * patch) - 0.5
    to_crop = np.array([[scale, 0, shift_x], [0, scale, shift_y], [0, 0, 1]])
    moved = to_crop @ homography.astype(np.float64) @ np.linalg.inv(to_crop)
    return moved.astype(np.float32)


def _taps(first: int, count: int, length: int, out: int) -> np.ndarray:
    """Weights float32 [out, length] that read `count` samples from `first` on as `out` samples."""
    position = first + (np.arange(out) + 0.5) * (count / out) - 0.5
    position = np.clip(position, 0, length - 1)
    low = np.minimum(position.astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros((out, length))
    fraction = position - low
    np.add.at(weights, (np.arange(out), low), 1 - fraction)
    np.add.at(weights, (np.arange(out), high), fraction)
    return weights.astype(np.float32)
