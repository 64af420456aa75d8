"""One pass over a video's frames: tubelets start, are followed along the flow, and are complete.

Only the luma of the frame before and the live tubelets are held. The flow of a frame pair, its
camera motion and a frame's HOG sums are computed once, whatever number of tubelets needs them, and
not at all where none does. Positions here are in pixels of the region (see `mme_core.canvas`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mme_core.canvas import Canvas, grid_points
from mme_core.extract.camera import homography
from mme_core.extract.flow import FlowFunction
from mme_core.extract.hog import HogField
from mme_core.extract.repeats import Repeats
from mme_core.extract.tracks import consistent, inside, sample
from mme_core.io.frame import Frame
from mme_core.spec import TUBELET, TargetSpec

Render = Callable[[Frame, Canvas, TargetSpec], Any]  # a sampled frame as a tubelet keeps it

_STILL = np.eye(3, dtype=np.float32)


@dataclass
class Tubelet:
    """What is known of a tubelet so far; N = hp·wp·K points, row by row.

    first         number of its first raw frame
    points        float32 [N, L+1, 2] (x, y), region pixels; filled up to `step`
    displacement  float32 [N, L, 2]; zero from `step` on
    hog           float32 [N, L, bins]; filled up to and with `step`
    valid         bool [N]
    homographies  float32 [3, 3] of each step, canvas pixels
    pts, frames   of the sampled frames met
    step          steps taken
    """

    first: int
    points: np.ndarray
    displacement: np.ndarray
    hog: np.ndarray
    valid: np.ndarray
    homographies: list[np.ndarray] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)
    step: int = 0


class Tracker:
    """Takes a video's frames, all of one size, and gives its tubelets as they are complete.

    `frames` counts the frames taken, `unmatched` the pairs whose camera motion was not found;
    `repeats` tells of pictures that are stored twice.
    """

    def __init__(
        self, canvas: Canvas, spec: TargetSpec, flow: FlowFunction, render: Render
    ) -> None:
        self.canvas, self.frames, self.unmatched = canvas, 0, 0
        self.repeats = Repeats()
        self._spec, self._flow, self._render = spec, flow, render
        self._grid = grid_points(canvas.hp, canvas.wp, spec).reshape(-1, 2)
        self._grid += np.array(canvas.offset, np.float32)
        top, left, bottom, right = canvas.region
        self._hog = HogField((bottom - top, right - left), spec)
        self._luma: np.ndarray | None = None  # of the frame before, where a tubelet needs it
        self._live: list[Tubelet] = []

    def take(self, frame: Frame) -> list[Tubelet]:
        """Follows the live tubelets to `frame`; returns those that are complete with it."""
        self.frames += 1
        followed = self._followed()
        starts = frame.number % self._spec.hop == 0
        luma = frame.luma(self._to_region) if followed or starts else None
        if followed:
            self.repeats.add(self._luma, luma)
            self._advance(followed, luma, frame.joined)
        if starts:
            self._start(frame.number)
        if to_describe := self._followed():
            self._describe(to_describe, luma)
        self._sample(frame)
        self._luma = luma
        return self._remove(lambda t: t.step == self._spec.length and len(t.frames) == TUBELET)

    def finish(self) -> list[Tubelet]:
        """The tubelets left at the end of the video that have both their sampled frames.

        Their points stand still from the last frame on, and none is valid.
        """
        left = self._remove(lambda t: len(t.frames) == TUBELET)
        for tubelet in left:
            tubelet.valid[:] = False
            tubelet.points[:, tubelet.step + 1 :] = tubelet.points[:, tubelet.step, None]
            tubelet.hog[:, tubelet.step + 1 :] = tubelet.hog[:, tubelet.step, None]
            tubelet.homographies += [_STILL] * (self._spec.length - tubelet.step)
        return left

    def _followed(self) -> list[Tubelet]:
        return [tubelet for tubelet in self._live if tubelet.step < self._spec.length]

    def _to_region(self, image: np.ndarray) -> np.ndarray:
        return self.canvas.crop_region(self.canvas.resize(image))

    def _start(self, first: int) -> None:
        count, length = len(self._grid), self._spec.length
        points = np.empty((count, length + 1, 2), np.float32)
        points[:, 0] = self._grid
        displacement = np.zeros((count, length, 2), np.float32)
        hog = np.empty((count, length, self._spec.hog_bins), np.float32)
        self._live.append(Tubelet(first, points, displacement, hog, np.ones(count, bool)))

    def _advance(self, followed: list[Tubelet], luma: np.ndarray, joined: bool) -> None:
        """One step of each tubelet from the frame before to `luma`; across a gap none moves."""
        flow = self._flow(self._luma, luma) if joined else np.zeros((*luma.shape, 2), np.float32)
        back = self._flow(luma, self._luma) if joined and self._spec.check else None
        camera = self._camera(flow) if joined and self._spec.camera == "homography" else _STILL
        for tubelet in followed:
            start = tubelet.points[:, tubelet.step]
            move = sample(flow, start)
            end = start + move
            tubelet.valid &= joined & inside(end, luma.shape)
            if back is not None:
                tubelet.valid &= consistent(move, back, end)
            tubelet.displacement[:, tubelet.step] = move
            tubelet.homographies.append(camera)
            tubelet.step += 1
            tubelet.points[:, tubelet.step] = end

    def _camera(self, flow: np.ndarray) -> np.ndarray:
        found = homography(self._luma, flow, self.canvas.offset)
        self.unmatched += found is None
        return _STILL if found is None else found

    def _describe(self, followed: list[Tubelet], luma: np.ndarray) -> None:
        """HOG at the present positions."""
        self._hog.load(luma)
        for tubelet in followed:
            tubelet.hog[:, tubelet.step] = self._hog.at(tubelet.points[:, tubelet.step])

    def _sample(self, frame: Frame) -> None:
        """Keeps the frame for the tubelets that sample it, rendered once."""
        stride = self._spec.stride
        sampling = [t for t in self._live if frame.number in (t.first, t.first + stride)]
        image = self._render(frame, self.canvas, self._spec) if sampling else None
        for tubelet in sampling:
            tubelet.pts.append(frame.pts)
            tubelet.frames.append(image)

    def _remove(self, complete: Callable[[Tubelet], bool]) -> list[Tubelet]:
        removed = [tubelet for tubelet in self._live if complete(tubelet)]
        self._live = [tubelet for tubelet in self._live if not complete(tubelet)]
        return removed
