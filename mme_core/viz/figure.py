"""Draws the paper's Figure 4: masked frames, true and predicted trajectories."""

from __future__ import annotations

import numpy as np

from mme_core.canvas import grid_points
from mme_core.errors import UsageError
from mme_core.spec import TUBELET, TargetSpec
from mme_core.viz.colour import speed_limit, wheel
from mme_core.viz.grids import below, beside, enlarge, muted, pad, readable_scale, text_bar
from mme_core.viz.motion import draw_trails

ROWS = ("masked", "true", "predicted", "original")
READABLE = 256  # least side of a frame in the picture, pixels
_HIDDEN = 150  # grey of a hidden patch


def figure4(
    frames: np.ndarray,
    mask: np.ndarray,
    true_displacement: np.ndarray,
    predicted_displacement: np.ndarray,
    spec: TargetSpec,
    caption: str,
    *,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Draws one column per tubelet: masked frame, true and predicted trajectories, original.

    frames                  uint8 [T, H, W, 3], T = 2 n; the first frame of each tubelet is shown
    mask                    bool [n, h, w], True = hidden; trajectories are drawn where hidden
    true_displacement       float [n, h, w, K, L, 2], canvas pixels
    predicted_displacement  the same shape; values of visible patches are not looked at
    caption                 printed below; says whether the true moments of the masked patches
                            were used to turn the prediction into pixels
    valid                   bool [n, h, w, K]; invalid trajectories are left out of both rows
    A trajectory is an arrow from its start to its end. Both rows share one colour scale, that of
    the true ones.
    Returns uint8 [., ., 3]. Raises UsageError for shapes that do not belong together.
    """
    n, h, w = mask.shape
    _check(frames, mask, true_displacement, predicted_displacement, spec)
    if valid is None:
        valid = np.ones((n, h, w, spec.points), bool)
    shown = valid & mask[..., None]
    height, width = frames.shape[1:3]
    scale = readable_scale(height, width, READABLE)
    limit = speed_limit(true_displacement[shown].mean(-2), quantile=0.9)
    starts = grid_points(h, w, spec)
    side = 64
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ROWS}
    for t in range(n):
        frame = frames[TUBELET * t]
        hidden = mask[t].repeat(spec.patch, 0).repeat(spec.patch, 1)
        # hidden before it is enlarged: interpolation must not carry hidden pixels into visible ones
        rows["masked"].append(enlarge(np.where(hidden[..., None], np.uint8(_HIDDEN), frame), scale))
        dark = muted(frame, 0.5)
        unseen = np.where(hidden[..., None], np.uint8(60), dark)
        for name, over, moves in (
            ("true", dark, true_displacement),
            ("predicted", unseen, predicted_displacement),
        ):
            paths = _paths(starts, moves[t])
            picture = draw_trails(over, paths, shown[t].reshape(-1), limit=limit, scale=scale)
            rows[name].append(picture)
        rows["original"].append(enlarge(frame, scale))
    body = below([_row(name, pictures) for name, pictures in rows.items()])
    return _with_caption(body, caption, limit, side)


def _check(
    frames: np.ndarray, mask: np.ndarray, true: np.ndarray, predicted: np.ndarray, spec: TargetSpec
) -> None:
    n, h, w = mask.shape
    size = (TUBELET * n, h * spec.patch, w * spec.patch, 3)
    if frames.shape != size:
        raise UsageError(f"frames have shape {frames.shape}; the mask {mask.shape} asks for {size}")
    for name, moves in (("true", true), ("predicted", predicted)):
        if moves.shape[:4] != (n, h, w, spec.points) or moves.shape[-1] != 2:
            raise UsageError(
                f"the {name} displacement has shape {moves.shape}, not "
                f"{(n, h, w, spec.points, spec.length, 2)}"
            )


def _paths(starts: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """[h, w, K, 2] and [h, w, K, L, 2] to positions [h·w·K, L + 1, 2]."""
    zero = np.zeros_like(moves[..., :1, :])
    positions = starts[..., None, :] + np.concatenate([zero, moves.cumsum(-2)], axis=-2)
    return positions.reshape(-1, *positions.shape[-2:])


def _row(name: str, pictures: list[np.ndarray]) -> np.ndarray:
    body = beside(pictures)
    label = np.rot90(text_bar(name, body.shape[0], align="centre"))
    return beside([np.ascontiguousarray(label), body], gap=0)


def _with_caption(body: np.ndarray, caption: str, limit: float, side: int) -> np.ndarray:
    legend = beside(
        [
            wheel(side),
            text_bar(f"colour: direction; full colour: {limit:.1f} px a raw frame and more", 190),
        ]
    )
    bar = text_bar(caption, max(body.shape[1] - legend.shape[1] - 12, 200))
    foot = beside([bar, legend], gap=12)
    width = max(body.shape[1], foot.shape[1])
    return below([pad(body, body.shape[0], width), foot])
