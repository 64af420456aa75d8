"""Tracks the points of all tubelets in one pass over a video's frames.

Only the luma of the previous frame and the unfinished tubelets are kept in memory. The flow and the
camera motion of a frame pair, and the HOG sums of a frame, are computed once for all tubelets, and
only where a tubelet needs them. Positions are in pixels of the region (see `mme_core.canvas`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mme_core.canvas import Canvas, region_grid
from mme_core.cells import bins
from mme_core.extract.camera import homography
from mme_core.extract.cells import FlowCells
from mme_core.extract.flow import FlowFunction
from mme_core.extract.hog import HogField
from mme_core.extract.point_tracks import PointTracks
from mme_core.extract.repeats import Repeats
from mme_core.extract.tracks import consistent, inside, sample
from mme_core.io.frame import Frame
from mme_core.spec import TUBELET, TargetSpec

Render = Callable[[Frame, Canvas, TargetSpec], Any]  # turns a sampled frame into the stored form
# (number of the first raw frame, its luma, the next frame's luma) -> flow between them
PairFlow = Callable[[int, np.ndarray, np.ndarray], np.ndarray]
Keep = Callable[[np.ndarray], None]  # takes the flow of each frame pair, in their order

_STILL = np.eye(3, dtype=np.float32)


@dataclass
class Tubelet:
    """A tubelet whose points are being tracked; N = hp·wp·K points, row by row.

    first         number of the tubelet's first raw frame
    points        float32 [N, L+1, 2] (x, y), region pixels; filled up to index `step`
    displacement  float32 [N, L, 2], pixels; zero from index `step` on
    hog           float32 [N, L, bins]; filled up to index `step`
    valid         bool [N]
    cells         {name of spec.cells: float32 [N, L, D]}; filled as far as frames were there
    homographies  float32 [3, 3] for each step, canvas pixels
    pts, frames   timestamps and rendered images of the sampled frames so far
    step          number of steps taken
    """

    first: int
    points: np.ndarray
    displacement: np.ndarray
    hog: np.ndarray
    valid: np.ndarray
    cells: dict[str, np.ndarray]
    homographies: list[np.ndarray] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)
    step: int = 0


class Tracker:
    """Takes a video's frames, all of one size, and returns each tubelet once it is complete.

    pair_flow  flow between two consecutive frames
    keep       gets the flow of every frame pair, also of those that no tubelet needs
    tracks     where the points are, instead of flow

    `frames` counts the frames taken. `unmatched` counts the frame pairs without a homography.
    `repeats` counts repeated frames.
    """

    def __init__(
        self,
        canvas: Canvas,
        spec: TargetSpec,
        flow: FlowFunction,
        render: Render,
        pair_flow: PairFlow | None = None,
        keep: Keep | None = None,
        tracks: PointTracks | None = None,
    ) -> None:
        self.canvas, self.frames, self.unmatched = canvas, 0, 0
        self.repeats = Repeats()
        self._spec, self._flow, self._render = spec, flow, render
        self._pair_flow = pair_flow or (lambda _, before, luma: flow(before, luma))
        self._keep, self._tracks = keep, tracks
        self._hop = TUBELET * spec.stride // spec.clip_step  # raw frames between two starts
        self._grid = region_grid(canvas, spec)
        top, left, bottom, right = canvas.region
        self._hog = HogField((bottom - top, right - left), spec)
        self._flow_cells = FlowCells(canvas, spec)
        self._luma: np.ndarray | None = None  # previous frame, where a tubelet needs it
        self._live: list[Tubelet] = []

    def take(self, frame: Frame) -> list[Tubelet]:
        """Tracks the unfinished tubelets to `frame`. Returns those that it completes."""
        self.frames += 1
        followed = self._followed()
        starts = frame.number % self._hop == 0
        luma = frame.luma(self._to_region) if followed or starts or self._keep else None
        if luma is not None:
            if self._tracks is not None:
                self._follow(followed, self._tracks, luma)
            elif self._luma is not None and (followed or self._keep):
                flow = self._flow_to(frame, self._luma, luma)
                if self._keep:
                    self._keep(flow)
                if followed:
                    self.repeats.add(self._luma, luma)
                    self._advance(followed, self._luma, luma, flow, frame.joined)
            if starts:
                self._start(frame.number)
            if to_describe := self._followed():
                self._describe(to_describe, luma)
        self._sample(frame)
        self._luma = luma
        return self._remove(lambda t: t.step == self._spec.length and len(t.frames) == TUBELET)

    def finish(self) -> list[Tubelet]:
        """Returns the unfinished tubelets that have both of their sampled frames.

        To be called at the end of the video. The points of these tubelets stay where they are in
        the last frame, and all are marked invalid.
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
        cells = {
            name: np.zeros((count, length, bins(name, self._spec)), np.float32)
            for name in self._spec.cells
        }
        self._live.append(Tubelet(first, points, displacement, hog, np.ones(count, bool), cells))

    def _flow_to(self, frame: Frame, before: np.ndarray, luma: np.ndarray) -> np.ndarray:
        """Flow from the previous frame to this one; zero where frames are missing in between."""
        if not frame.joined:
            return np.zeros((*luma.shape, 2), np.float32)
        return self._pair_flow(frame.number - 1, before, luma)

    def _advance(
        self,
        followed: list[Tubelet],
        before: np.ndarray,
        luma: np.ndarray,
        flow: np.ndarray,
        joined: bool,
    ) -> None:
        """Moves each tubelet one step, from the frame `before` to `luma`."""
        back = self._flow(luma, before) if joined and self._spec.check else None
        camera = (
            self._camera(before, flow) if joined and self._spec.camera == "homography" else _STILL
        )
        histograms = self._flow_cells.of(flow)
        for tubelet in followed:
            for name, histogram in histograms.items():
                tubelet.cells[name][:, tubelet.step] = histogram
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

    def _follow(self, followed: list[Tubelet], tracks: PointTracks, luma: np.ndarray) -> None:
        """Moves each tubelet one step along its tracks; without tracks no point moves."""
        if followed and self._luma is not None:
            self.repeats.add(self._luma, luma)
        for tubelet in followed:
            start = tubelet.points[:, tubelet.step]
            end, visible = tracks.after(tubelet.first, tubelet.step + 1) or (start, np.False_)
            tubelet.valid &= visible & inside(end, luma.shape)
            tubelet.displacement[:, tubelet.step] = end - start
            tubelet.homographies.append(_STILL)
            tubelet.step += 1
            tubelet.points[:, tubelet.step] = end

    def _camera(self, luma: np.ndarray, flow: np.ndarray) -> np.ndarray:
        found = homography(luma, flow, self.canvas.offset)
        self.unmatched += found is None
        return _STILL if found is None else found

    def _describe(self, followed: list[Tubelet], luma: np.ndarray) -> None:
        """Computes HOG at the current positions."""
        has_cells = "hog" in self._spec.cells
        points = [tubelet.points[:, tubelet.step] for tubelet in followed]
        self._hog.load(luma, [*points, self._grid] if has_cells else points)
        cells = self._hog.at(self._grid) if has_cells else None
        for tubelet in followed:
            if cells is not None:
                tubelet.cells["hog"][:, tubelet.step] = cells
            tubelet.hog[:, tubelet.step] = self._hog.at(tubelet.points[:, tubelet.step])

    def _sample(self, frame: Frame) -> None:
        """Renders the frame once and stores it in the tubelets that sample it."""
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
