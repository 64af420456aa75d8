"""Stage 1 for one video: frames -> flow -> tracks and HOG -> targets, in one streaming pass.

Where the frame size changes, only the longest part with one size is used.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mme_core import cells, targets
from mme_core.canvas import Canvas, plan_canvas
from mme_core.clock import deadline_after
from mme_core.errors import UsageError, VideoError
from mme_core.extract.flow import FlowFunction, FlowOfFrames, check_side, flow_function
from mme_core.extract.flow_runs import FlowRuns
from mme_core.extract.kept_flow import KeptFlow
from mme_core.extract.point_tracks import PointTracks, point_tracker
from mme_core.extract.remarks import part_warning, warnings_of, why_none_is_valid
from mme_core.extract.results import TubeletTargets, VideoSummary, VideoTargets
from mme_core.extract.stages import Stopwatch
from mme_core.extract.tracker import Keep, Render, Tracker, Tubelet
from mme_core.frame_codec import encode_frame
from mme_core.io.frame import Frame
from mme_core.io.frame_folder import FrameFolder
from mme_core.io.video import Part, Parts, Video, open_video
from mme_core.spec import TargetSpec

# Number of a raw frame -> its coded frame, where there is one.
StoredFrame = Callable[[int], bytes | None]


def stream_tubelets(
    path: str | Path,
    spec: TargetSpec,
    deadline_s: float = float("inf"),
    *,
    kept: KeptFlow | None = None,
    keep: Keep | None = None,
    stored: StoredFrame | None = None,
    stopwatch: Stopwatch | None = None,
) -> TubeletStream:
    """Extracts a video as an iterable of TubeletTargets. Memory does not grow with its length.

    kept       flow to use instead of computing it; not with spec.check
    keep       gets the flow of every frame pair, float32 [H, W, 2]. After LaterPartError, drop what
               it got: it gets all flow again
    stored     finds coded frames that were made before, to be used again
    stopwatch  measures the time of each stage

    After the iteration, `summary` of the returned object describes the video. Iterating raises the
    errors of `extract_video`, and LaterPartError where the tubelets so far must be dropped.
    """

    def render(frame: Frame, canvas: Canvas, spec: TargetSpec) -> bytes | None:
        known = stored(frame.number) if stored else None
        return known or _render_coded(frame, canvas, spec)

    return TubeletStream(path, spec, deadline_s, render, _code, kept, keep, stopwatch)


def extract_video(
    path: str | Path, spec: TargetSpec, deadline_s: float = float("inf")
) -> VideoTargets:
    """Extracts all targets of one video as float arrays.

    `path` may also be a URL, `FILE.h5::NAME`, or a folder of numbered pictures.
    Raises VideoError, whose message is the reason, for an unusable file, for a video without a
    valid trajectory, and where extraction exceeds the time limit.
    """
    stream = TubeletStream(path, spec, deadline_s, _render_rgb, _float_arrays)
    try:
        tubelets = list(stream)
    except LaterPartError:
        tubelets = list(stream)
    parts = [tubelet.pop("cells") for tubelet in tubelets]
    arrays = {name: np.stack([tubelet[name] for tubelet in tubelets]) for name in tubelets[0]}
    frames = arrays.pop("frames")
    cameras = arrays.pop("homography")
    assert stream.summary is not None  # set by a complete iteration
    return VideoTargets(
        **arrays,
        frames=frames.reshape(-1, *frames.shape[2:]),
        homography=cameras if spec.camera == "homography" else None,
        summary=stream.summary,
        cells={name: np.stack([part[name] for part in parts]) for name in spec.cells},
    )


class LaterPartError(VideoError):
    """The frame size changes, and a later part with one size is longer than the first.

    Drop the tubelets so far and iterate the stream again: it then uses the longest part.
    """


class TubeletStream:
    """Extracts a video tubelet by tubelet when iterated. Then `summary` describes the video.

    `stopwatch` measures the stages; the caller may measure its own with it, too.
    """

    def __init__(
        self,
        path: str | Path,
        spec: TargetSpec,
        deadline_s: float,
        render: Render,
        finish: Callable[[Tubelet, Canvas, TargetSpec], Any],
        kept: KeptFlow | None = None,
        keep: Keep | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.summary: VideoSummary | None = None
        self._path, self._spec, self._deadline_s = path, spec, deadline_s
        self._deadline: float | None = None  # a second iteration keeps the deadline of the first
        self._part: Part | None = None  # the frames to use, known once the frame size has changed
        self._frames = 0  # number of frames in the file, where only a part is used
        self.stopwatch = watch = stopwatch or Stopwatch()
        self._render, self._finish = watch.calls("frames", render), watch.calls("tracks", finish)
        self._kept, self._keep = kept, watch.calls("writing", keep) if keep else None
        self._flow: FlowFunction | FlowOfFrames = _no_flow
        self._point_tracker = point_tracker(spec.tracks) if spec.tracks else None
        if spec.tracks and (kept or keep):
            raise UsageError("spec.tracks computes no flow, so none can be kept or used again")
        if not kept and not spec.tracks:
            check_side(spec.flow, spec.short_side)
            self._flow = flow_function(spec.flow, spec.flow_weights)

    def __iter__(self) -> Iterator[Any]:
        if self._deadline is None:
            self._deadline = deadline_after(self._deadline_s)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # with several threads the flow would depend on the machine
        try:
            with self.stopwatch.of("decode"):
                video = open_video(
                    self._path, self._deadline, square_pixels=self._spec.square_pixels
                )
            with video:
                yield from self._extract(video)
        finally:
            cv2.setNumThreads(threads)

    def _extract(self, video: Video | FrameFolder) -> Iterator[Any]:
        frames = self.stopwatch.each("decode", self._of_one_size(video))
        first = next(frames, None)
        if first is None:
            raise VideoError(f"no frame can be decoded: {video.trouble or 'there is none'}")
        canvas = plan_canvas(*first.shape, self._spec)
        tracker, frames = self._tracker(canvas, itertools.chain([first], frames))
        count, any_valid = 0, False
        for tubelet in self._tubelets(tracker, frames):
            count += 1
            any_valid |= bool(tubelet.valid.any())
            yield self._finish(tubelet, canvas, self._spec)
        if not any_valid:
            raise VideoError(why_none_is_valid(tracker.frames, self._spec))
        self.summary = VideoSummary(
            frames=tracker.frames,
            first_frame=self._part.first if self._part else 0,
            fps=video.frame_rate,
            height=canvas.height,
            width=canvas.width,
            hp=canvas.hp,
            wp=canvas.wp,
            tubelets=count,
            warnings=(*warnings_of(video, tracker, first, self._spec), *self._part_warning()),
        )

    def _tracker(self, canvas: Canvas, frames: Iterator[Frame]) -> tuple[Tracker, Iterator[Frame]]:
        """The tracker, and the frames that it must take, which may be looked at in advance."""
        tracks, flow = None, self._flow
        if self._point_tracker is not None:
            tracks = PointTracks(self._point_tracker, self._spec)
            frames = self.stopwatch.each("flow", tracks.watch(frames, canvas))
        if isinstance(flow, FlowOfFrames):
            flow = FlowRuns(flow, self._spec, every_pair=self._keep is not None)
            frames = self.stopwatch.each("flow", flow.watch(frames, canvas))
        pair_flow = self.stopwatch.calls("flow", self._kept) if self._kept else None
        flow = self.stopwatch.calls("flow", flow)
        parts = (self._render, pair_flow, self._keep, tracks)
        return Tracker(canvas, self._spec, flow, *parts), frames

    def _tubelets(self, tracker: Tracker, frames: Iterator[Frame]) -> Iterator[Tubelet]:
        """Yields the tubelets. Raises VideoError where the kept flow is that of other frames."""
        try:
            for frame in frames:
                with self.stopwatch.of("tracks"):
                    complete = tracker.take(frame)
                yield from complete
            yield from tracker.finish()
            if self._kept:
                self._kept.check_end(tracker.frames)
        except VideoError:
            if self._kept:
                # The kept flow may be that of a later part. Then reading on raises LaterPartError.
                deque(frames, maxlen=0)
            raise

    def _of_one_size(self, video: Video | FrameFolder) -> Iterator[Frame]:
        """Yields the frames of the longest part with one size, numbered from its start.

        The first iteration assumes that the first part is the longest. At the end of the file it
        knows all parts, and raises LaterPartError where another one is longer.
        """
        if self._part is not None:
            yield from _frames_of(video, self._part)
            return
        parts = Parts()
        for frame in video:
            parts.add(frame)
            if parts.changes == 0:
                yield frame
        if parts.changes and parts.longest is not None:
            self._part, self._frames = parts.longest, parts.frames
            if self._part.first:
                raise LaterPartError("the frame size changes, and a later part is longer")

    def _part_warning(self) -> tuple[str, ...]:
        if self._part is None:
            return ()
        return (part_warning(self._part, self._frames),)


def _no_flow(before: np.ndarray, luma: np.ndarray) -> np.ndarray:
    raise UsageError("spec.check=true needs backward flow, and only forward flow is kept")


def _frames_of(video: Video | FrameFolder, part: Part) -> Iterator[Frame]:
    for frame in itertools.islice(video, part.first, part.first + part.count):
        yield dataclasses.replace(frame, number=frame.number - part.first)


def _arrays(
    tubelet: Tubelet, canvas: Canvas, spec: TargetSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns displacement, hog and valid of a tubelet, each reshaped to [hp, wp, K, ...]."""
    lead = (canvas.hp, canvas.wp, spec.points)
    parts = (tubelet.displacement, tubelet.hog, tubelet.valid)
    displacement, hog, valid = (part.reshape(*lead, *part.shape[1:]) for part in parts)
    return displacement, hog, valid


def _cells(tubelet: Tubelet, canvas: Canvas, spec: TargetSpec) -> dict[str, np.ndarray]:
    """{name of spec.cells: float32 [hp, wp, K, L, D]}."""
    lead = (canvas.hp, canvas.wp, spec.points)
    return {name: sums.reshape(*lead, *sums.shape[1:]) for name, sums in tubelet.cells.items()}


def _code(tubelet: Tubelet, canvas: Canvas, spec: TargetSpec) -> TubeletTargets:
    displacement, hog, valid = _arrays(tubelet, canvas, spec)
    position, shape, moments = targets.encode(displacement, hog, spec)
    return TubeletTargets(
        position,
        shape,
        moments,
        valid=targets.pack_valid(valid),
        pts=np.array(tubelet.pts, np.int64),
        frames=tuple(tubelet.frames) if spec.frames != "none" else (),
        homography=np.stack(tubelet.homographies) if spec.camera == "homography" else None,
        first=tubelet.first,
        cells=cells.encode_all(_cells(tubelet, canvas, spec)),
    )


def _float_arrays(tubelet: Tubelet, canvas: Canvas, spec: TargetSpec) -> dict[str, Any]:
    displacement, hog, valid = _arrays(tubelet, canvas, spec)
    points = tubelet.points - np.array(canvas.offset, np.float32)
    return {
        "displacement": displacement,
        "points": points.reshape(*valid.shape, spec.length + 1, 2),
        "hog": hog,
        "valid": valid,
        "position": targets.normalise(displacement),
        "shape": targets.normalise(hog),
        "moments": targets.encode(displacement, hog, spec)[2],
        "frames": np.stack(tubelet.frames),
        "pts": np.array(tubelet.pts, np.int64),
        "homography": np.stack(tubelet.homographies),
        "cells": _cells(tubelet, canvas, spec),
    }


def _render_rgb(frame: Frame, canvas: Canvas, spec: TargetSpec) -> np.ndarray:
    return canvas.crop(canvas.resize(frame.rgb()))


def _render_coded(frame: Frame, canvas: Canvas, spec: TargetSpec) -> bytes | None:
    if spec.frames == "none":
        return None
    return encode_frame(canvas.crop(canvas.resize(frame.bgr())), spec)
