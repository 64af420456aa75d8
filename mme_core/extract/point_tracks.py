"""Trajectories by a point tracker of the user, such as CoTracker3 or TAPNext, instead of flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mme_core.canvas import Canvas, region_grid
from mme_core.errors import UsageError
from mme_core.extract.ahead import Ahead, region_images
from mme_core.extract.plugin import as_array, check_array, load_plugin
from mme_core.io.frame import Frame
from mme_core.spec import TUBELET, TargetSpec

# (frames RGB uint8 [T, 3, H, W], queries float32 [N, 2]) -> (positions float32 [T, N, 2],
# visible bool [T, N]), arrays or tensors. Points are (x, y), pixels; the queries are in frame 0.
PointTracker = Callable[[np.ndarray, np.ndarray], Any]


class PointTracks:
    """Asks the tracker once for each tubelet, with its L + 1 raw frames.

    `watch` looks ahead in the video. `after` then says where the points are.
    """

    def __init__(self, tracker: PointTracker, spec: TargetSpec) -> None:
        self._tracker, self._spec = tracker, spec
        self._hop = TUBELET * spec.stride // spec.clip_step
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by the tubelet's first frame

    def watch(self, frames: Iterator[Frame], canvas: Canvas) -> Iterator[Frame]:
        """Yields the frames, and tracks the grid's points before the first frame of each tubelet.

        A tubelet across a gap, or that the video's end cuts short, is not tracked.
        """
        ahead, queries_N2 = Ahead(frames), region_grid(canvas, self._spec)
        for frame in ahead:
            first, length = frame.number, self._spec.length
            if first % self._hop == 0:
                others = ahead.see(length)
                if len(others) == length and all(other.joined for other in others):
                    images = region_images([frame, *others], canvas)
                    self._found[first] = self._track(images, queries_N2)
                for ended in [start for start in self._found if start + length < first]:
                    del self._found[ended]
            yield frame

    def after(self, first: int, step: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns where the points of the tubelet are after `step` steps, and if they are visible.

        float32 [N, 2] and bool [N]; None if the tubelet is not tracked.
        """
        if first not in self._found:
            return None
        positions, visible = self._found[first]
        return positions[step], visible[step]

    def _track(
        self, frames_TCHW: np.ndarray, queries_N2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        what = f"spec.tracks={self._spec.tracks}"
        answer = self._tracker(frames_TCHW, queries_N2.copy())
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise UsageError(f"{what} must return two arrays: positions and visibility")
        shape = (len(frames_TCHW), len(queries_N2))
        positions = check_array(f"{what}: positions", as_array(answer[0]), (*shape, 2), np.float32)
        visible = check_array(f"{what}: visibility", as_array(answer[1]), shape, np.bool_)
        known = np.isfinite(positions).all(-1)
        # A point that is invisible where the tubelet starts is so in all of its frames.
        visible = visible & visible[:1] & known
        return np.where(known[..., None], positions, queries_N2), visible


def point_tracker(name: str) -> PointTracker:
    """Returns the tracker `package.module:function`. Raises UsageError where there is none."""
    return load_plugin("tracks", name)
