"""Draws a window at one raw frame, with the trajectories that are active at that time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mme_core.spec import TUBELET, TargetSpec
from mme_core.viz.colour import speed_limit
from mme_core.viz.glyphs import draw_hog
from mme_core.viz.grids import muted
from mme_core.viz.motion import draw_arrows, draw_tracks, flow_picture

HOLD = 3  # raw frames in which the tail of a finished trajectory fades away


@dataclass(frozen=True)
class Tracks:
    """The arrays of a window that are drawn; time counts raw frames from its first frame.

    points        float32 [n, h, w, K, L + 1, 2], canvas pixels
    displacement  float32 [n, h, w, K, L, 2], pixels a raw frame
    hog           float32 [n, h, w, K, L, bins]
    valid         bool [n, h, w, K]
    """

    points: np.ndarray
    displacement: np.ndarray
    hog: np.ndarray
    valid: np.ndarray
    spec: TargetSpec

    @property
    def every(self) -> int:
        """Raw frames from one tubelet of the window to its next."""
        return TUBELET * self.spec.stride

    @property
    def limit(self) -> float:
        """The speed drawn in full colour, pixels a raw frame."""
        return speed_limit(self.displacement[self.valid])

    def at(self, time: int) -> tuple[int, int]:
        """The tubelet that is under way at a raw frame, and the frame's number within it."""
        tubelet = min(time // self.every, len(self.points) - 1)
        return tubelet, time - tubelet * self.every


def tracks_picture(
    tracks: Tracks, frame: np.ndarray, time: int, limit: float, scale: int
) -> np.ndarray:
    """Every trajectory that is under way at `time`, or ended less than HOLD raw frames ago."""
    length = tracks.spec.length
    paths, valid, opacity, heads = [], [], [], []
    for tubelet in range(len(tracks.points)):
        elapsed = time - tubelet * tracks.every
        if not 0 <= elapsed < length + HOLD + tracks.every:
            continue
        steps = min(elapsed, length)
        # Each path has full length: steps that are still to come are a pause at the start.
        index = np.maximum(np.arange(length + 1) - (length - steps), 0)
        paths.append(tracks.points[tubelet][..., index, :].reshape(-1, length + 1, 2))
        valid.append(tracks.valid[tubelet].reshape(-1))
        age = elapsed - steps + np.arange(length)[::-1]
        strength = np.clip(1 - age / (length + HOLD), 0, 1) * (index[1:] > 0)
        opacity.append(np.broadcast_to(strength, (len(paths[-1]), length)))
        heads.append(np.full(len(paths[-1]), elapsed < tracks.every))
    return draw_tracks(
        muted(frame),
        np.concatenate(paths),
        np.concatenate(valid),
        limit=limit,
        scale=scale,
        opacity=np.concatenate(opacity),
        heads=np.concatenate(heads),
    )


def arrows_picture(
    tracks: Tracks, frame: np.ndarray, time: int, limit: float, scale: int
) -> np.ndarray:
    """The way from the start to the end of each trajectory of the tubelet under way."""
    points = tracks.points[tracks.at(time)[0]].reshape(-1, tracks.spec.length + 1, 2)
    valid = tracks.valid[tracks.at(time)[0]].reshape(-1)
    return draw_arrows(
        muted(frame),
        points[:, 0],
        points[:, -1] - points[:, 0],
        valid,
        limit=limit * tracks.spec.length,
        scale=scale,
    )


def flow_layer(
    tracks: Tracks, frame: np.ndarray, time: int, limit: float, scale: int
) -> np.ndarray:
    """The step that starts at this raw frame, or the last step; one cell per point."""
    tubelet, elapsed = tracks.at(time)
    step = min(elapsed, tracks.spec.length - 1)
    moves = tracks.displacement[tubelet, ..., step, :]
    return flow_picture(moves, tracks.valid[tubelet], tracks.spec, limit, scale)


def hog_picture(
    tracks: Tracks, frame: np.ndarray, time: int, limit: float, scale: int
) -> np.ndarray:
    """The HOG around each point where it is at this raw frame."""
    tubelet, elapsed = tracks.at(time)
    step = min(elapsed, tracks.spec.length - 1)
    valid = tracks.valid[tubelet].reshape(-1)
    points = tracks.points[tubelet, ..., step, :].reshape(-1, 2)[valid]
    hog = tracks.hog[tubelet, ..., step, :].reshape(-1, tracks.spec.hog_bins)[valid]
    return draw_hog(frame, points, hog, tracks.spec, scale)


Layer = Callable[[Tracks, np.ndarray, int, float, int], np.ndarray]
LAYERS: dict[str, Layer] = {
    "tracks": tracks_picture,
    "arrows": arrows_picture,
    "flow": flow_layer,
    "hog": hog_picture,
}
