"""Stage 1 for one video: frames -> flow -> tracks and HOG -> targets, in one streaming pass.

Only the frame before and the points of live tubelets are held, so memory does not grow with the
video. Each needed flow and each frame's HOG maps are computed once, also where tubelets overlap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mme_core import targets
from mme_core.camera import homography
from mme_core.canvas import Canvas, grid_points, plan_canvas
from mme_core.errors import VideoError
from mme_core.flow import flow_function
from mme_core.hog import hog_at, hog_maps
from mme_core.spec import TUBELET, TargetSpec
from mme_core.tracks import consistent, inside, sample
from mme_core.video import Frame, Video


@dataclass(frozen=True)
class VideoSummary:
    """What is known of a video once it has been read; frames are counted, not taken from headers.

    fps is measured from the timestamps where they increase, otherwise the header's.
    """

    frames: int
    fps: float
    height: int
    width: int
    hp: int
    wp: int
    tubelets: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TubeletTargets:
    """One tubelet as it is stored; see DESIGN of the store in docs.

    position    int8 [hp, wp, K, L, 2]
    shape       int8 [hp, wp, K, L, bins]
    moments     float32 [hp, wp, 6]
    valid       uint8 [hp, wp], bit k: trajectory k
    pts         int64 [2] of the sampled frames
    frames      their canvases as JPEG bytes, or () with spec.frames=none
    homography  float32 [L, 3, 3] on canvas pixels, or None with spec.camera=none
    first       number of the tubelet's first raw frame
    """

    position: np.ndarray
    shape: np.ndarray
    moments: np.ndarray
    valid: np.ndarray
    pts: np.ndarray
    frames: tuple[bytes, ...]
    homography: np.ndarray | None
    first: int


@dataclass(frozen=True)
class VideoTargets:
    """All tubelets of a video before quantisation; n tubelets.

    displacement  float32 [n, hp, wp, K, L, 2] canvas pixels (x, y)
    points        float32 [n, hp, wp, K, L+1, 2] canvas pixels
    hog           float32 [n, hp, wp, K, L, bins]
    valid         bool [n, hp, wp, K]
    position      float32, displacement normalised per patch (the paper's target)
    shape         float32, hog normalised per patch
    moments       float32 [n, hp, wp, 6] as stored
    frames        uint8 [2n, 16 hp, 16 wp, 3] RGB canvases of the sampled frames
    pts           int64 [n, 2]
    homography    float32 [n, L, 3, 3] or None
    summary       VideoSummary
    """

    displacement: np.ndarray
    points: np.ndarray
    hog: np.ndarray
    valid: np.ndarray
    position: np.ndarray
    shape: np.ndarray
    moments: np.ndarray
    frames: np.ndarray
    pts: np.ndarray
    homography: np.ndarray | None
    summary: VideoSummary


@dataclass
class _Tubelet:
    """A tubelet that is being followed; arrays are [points, ...], positions in the region."""

    first: int
    points: np.ndarray  # float32 [N, L+1, 2]
    hog: np.ndarray  # float32 [N, L, bins]
    intact: np.ndarray  # bool [N]
    homographies: list[np.ndarray] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)
    step: int = 0  # steps taken


class TubeletStream:
    """Iterating extracts a video tubelet by tubelet; afterwards `summary` describes the video."""

    def __init__(
        self,
        path: str | Path,
        spec: TargetSpec,
        deadline_s: float,
        finish: Callable[[_Tubelet, Canvas, TargetSpec], Any],
        render: Callable[[Frame, Canvas, TargetSpec], Any],
    ) -> None:
        self.summary: VideoSummary | None = None
        self._path, self._spec, self._deadline_s = path, spec, deadline_s
        self._finish, self._render = finish, render

    def __iter__(self) -> Iterator[Any]:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # flow by stripes would depend on the machine
        try:
            with Video(self._path, time.monotonic() + self._deadline_s) as video:
                yield from self._follow(video)
        finally:
            cv2.setNumThreads(threads)

    def _follow(self, video: Video) -> Iterator[Any]:
        spec = self._spec
        walk: _Walk | None = None
        tubelets = valid = 0
        for frame in video:
            walk = walk or _Walk(frame.shape, spec, self._render)
            for tubelet in walk.take(frame):
                tubelets, valid = tubelets + 1, valid + int(tubelet.intact.any())
                yield self._finish(tubelet, walk.canvas, spec)
        if walk is None:
            raise VideoError("no frame can be decoded")
        for tubelet in walk.drain():
            tubelets, valid = tubelets + 1, valid + int(tubelet.intact.any())
            yield self._finish(tubelet, walk.canvas, spec)
        frames = walk.number + 1
        if not valid:
            raise VideoError(_nothing_valid(frames, spec))
        canvas = walk.canvas
        timeline = video.timeline
        fps = video.header_rate
        if timeline.increasing and frames > 1 and video.time_base:
            fps = (frames - 1) / ((timeline.last - timeline.first) * video.time_base)
        self.summary = VideoSummary(
            frames,
            fps,
            canvas.height,
            canvas.width,
            canvas.hp,
            canvas.wp,
            tubelets,
            _warnings(video, walk),
        )


class _Walk:
    """The state of one pass over a video: live tubelets and the luma of the frame before."""

    def __init__(
        self,
        shape: tuple[int, int],
        spec: TargetSpec,
        render: Callable[[Frame, Canvas, TargetSpec], Any],
    ) -> None:
        self.spec, self._render = spec, render
        self.canvas = plan_canvas(*shape, spec)
        self.number = -1
        self.identities = 0
        self._flow = flow_function(spec.flow)
        self._luma: np.ndarray | None = None
        grid = grid_points(self.canvas.hp, self.canvas.wp, spec).reshape(-1, 2)
        self._grid = grid + np.array(self.canvas.offset, np.float32)
        self._live: list[_Tubelet] = []

    def take(self, frame: Frame) -> list[_Tubelet]:
        """Follows the live tubelets to `frame`; returns those that are complete."""
        if frame.shape != (self.canvas.height, self.canvas.width):
            raise VideoError(f"the frame size changes at frame {frame.number}")
        self.number = frame.number
        spec = self.spec
        followed = [t for t in self._live if t.step < spec.length]
        starts = frame.number % spec.hop == 0
        luma = None
        if followed or starts:
            luma = frame.luma(self._to_region)
        if followed:
            self._advance(followed, luma, frame.joined)
        if starts:
            self._live.append(self._start(frame.number))
        self._luma = luma
        self._read_hog(luma)
        self._sample(frame)
        return self._collect(lambda t: t.step == spec.length and len(t.frames) == TUBELET)

    def drain(self) -> list[_Tubelet]:
        """The tubelets left at the end whose sampled frames exist; missing steps stand still."""
        left = self._collect(lambda t: len(t.frames) == TUBELET)
        for tubelet in left:
            tubelet.intact[:] = False
            tubelet.points[:, tubelet.step + 1 :] = tubelet.points[:, tubelet.step, None]
            tubelet.hog[:, tubelet.step + 1 :] = tubelet.hog[:, tubelet.step, None]
            missing = self.spec.length - len(tubelet.homographies)
            tubelet.homographies += [np.eye(3, dtype=np.float32)] * missing
        return left

    def _to_region(self, image: np.ndarray) -> np.ndarray:
        return self.canvas.crop_region(self.canvas.resize(image))

    def _start(self, first: int) -> _Tubelet:
        spec, n = self.spec, len(self._grid)
        points = np.empty((n, spec.length + 1, 2), np.float32)
        points[:, 0] = self._grid
        hog = np.empty((n, spec.length, spec.hog_bins), np.float32)
        return _Tubelet(first, points, hog, np.ones(n, bool))

    def _advance(self, followed: list[_Tubelet], luma: np.ndarray, joined: bool) -> None:
        """One step of the followed tubelets along the flow from the frame before to `luma`."""
        flow = self._flow(self._luma, luma) if joined else None
        back = self._flow(luma, self._luma) if joined and self.spec.check else None
        camera = np.eye(3, dtype=np.float32)
        if self.spec.camera == "homography" and flow is not None:
            found = homography(self._luma, flow, self.canvas.offset)
            self.identities += found is None
            camera = camera if found is None else found
        for tubelet in followed:
            start = tubelet.points[:, tubelet.step]
            step = np.zeros_like(start) if flow is None else sample(flow, start)
            end = start + step
            tubelet.points[:, tubelet.step + 1] = end
            tubelet.intact &= joined & inside(end, luma.shape)
            if back is not None:
                tubelet.intact &= consistent(step, back, end)
            tubelet.homographies.append(camera)
            tubelet.step += 1

    def _read_hog(self, luma: np.ndarray | None) -> None:
        followed = [t for t in self._live if t.step < self.spec.length]
        if not followed:
            return
        maps = hog_maps(luma, self.spec)
        for tubelet in followed:
            points = tubelet.points[:, tubelet.step]
            tubelet.hog[:, tubelet.step] = hog_at(maps, points, self.spec)

    def _sample(self, frame: Frame) -> None:
        sampling = [t for t in self._live if frame.number in (t.first, t.first + self.spec.stride)]
        if sampling:
            image = self._render(frame, self.canvas, self.spec)
            for tubelet in sampling:
                tubelet.pts.append(frame.pts)
                tubelet.frames.append(image)

    def _collect(self, complete: Callable[[_Tubelet], bool]) -> list[_Tubelet]:
        done = [t for t in self._live if complete(t)]
        self._live = [t for t in self._live if not complete(t)]
        return done


def stream_tubelets(
    path: str | Path, spec: TargetSpec, deadline_s: float = float("inf")
) -> TubeletStream:
    """The tubelets of a video as TubeletTargets, in order; memory does not grow with its length.

    `summary` of what is returned describes the video once the iteration is over. Raises
    VideoError, whose message is the reason, for a file that is no usable video, a video without
    one valid trajectory, and one that takes longer than `deadline_s` seconds.
    """
    return TubeletStream(path, spec, deadline_s, _encode_tubelet, _render_jpeg)


def extract_video(
    path: str | Path, spec: TargetSpec, deadline_s: float = float("inf")
) -> VideoTargets:
    """All targets of one video as float arrays, before quantisation; errors as stream_tubelets."""
    stream = TubeletStream(path, spec, deadline_s, _float_tubelet, _render_rgb)
    columns = {name: [] for name in VideoTargets.__dataclass_fields__ if name != "summary"}
    for tubelet in stream:
        for name, value in tubelet.items():
            columns[name].append(value)
    frames = np.concatenate(columns.pop("frames"))
    cameras = columns.pop("homography")
    arrays = {name: np.stack(values) for name, values in columns.items()}
    return VideoTargets(
        **arrays,
        frames=frames,
        homography=np.stack(cameras) if spec.camera == "homography" else None,
        summary=stream.summary,
    )


def _arrays(
    tubelet: _Tubelet, canvas: Canvas, spec: TargetSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """points, displacement, hog, valid of a finished tubelet, [hp, wp, K, ...]."""
    lead = (canvas.hp, canvas.wp, spec.points)
    points = tubelet.points - np.array(canvas.offset, np.float32)
    displacement = np.diff(tubelet.points, axis=1)
    return (
        points.reshape(*lead, spec.length + 1, 2),
        displacement.reshape(*lead, spec.length, 2),
        tubelet.hog.reshape(*lead, spec.length, spec.hog_bins),
        tubelet.intact.reshape(lead),
    )


def _encode_tubelet(tubelet: _Tubelet, canvas: Canvas, spec: TargetSpec) -> TubeletTargets:
    _, displacement, hog, valid = _arrays(tubelet, canvas, spec)
    position, shape, moments = targets.encode(displacement, hog, spec)
    return TubeletTargets(
        position,
        shape,
        moments,
        targets.pack_valid(valid),
        np.array(tubelet.pts, np.int64),
        tuple(tubelet.frames) if spec.frames == "jpeg" else (),
        np.stack(tubelet.homographies) if spec.camera == "homography" else None,
        tubelet.first,
    )


def _float_tubelet(tubelet: _Tubelet, canvas: Canvas, spec: TargetSpec) -> dict[str, Any]:
    points, displacement, hog, valid = _arrays(tubelet, canvas, spec)
    axes = (-3, -2, -1)
    return {
        "points": points,
        "displacement": displacement,
        "hog": hog,
        "valid": valid,
        "position": targets.normalise(displacement, axes),
        "shape": targets.normalise(hog, axes),
        "moments": targets.encode(displacement, hog, spec)[2],
        "frames": np.stack(tubelet.frames),
        "pts": np.array(tubelet.pts, np.int64),
        "homography": np.stack(tubelet.homographies),
    }


def _render_rgb(frame: Frame, canvas: Canvas, spec: TargetSpec) -> np.ndarray:
    return canvas.crop(canvas.resize(frame.rgb()))


def _render_jpeg(frame: Frame, canvas: Canvas, spec: TargetSpec) -> bytes | None:
    if spec.frames == "none":
        return None
    image = canvas.crop(canvas.resize(frame.bgr()))
    quality = [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality]
    return cv2.imencode(".jpg", image, quality)[1].tobytes()


def _nothing_valid(frames: int, spec: TargetSpec) -> str:
    needed = max(spec.length, spec.stride) + 1
    if frames < needed:
        return (
            f"{frames} frame{'s' * (frames != 1)}: too short for one trajectory of {spec.length} "
            f"steps, which needs {needed}"
        )
    return f"{frames} frames without one valid trajectory: gaps, or points that leave the frame"


def _warnings(video: Video, walk: _Walk) -> tuple[str, ...]:
    """Remarks for the video's row of the table."""
    counted = {
        "broken packets": video.broken_packets,
        "damaged frames": video.damaged_frames,
        "gaps": video.timeline.gaps,
        "pairs without a homography": walk.identities,
    }
    remarks = [f"{name}: {count}" for name, count in counted.items() if count]
    if not video.timeline.increasing:
        remarks.append("timestamps are missing or do not increase")
    return tuple(remarks)
