"""What the extraction of one video returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mme_core.listing import listing


@dataclass(frozen=True)
class VideoSummary:
    """Metadata of a video that was read.

    frames         number of frames that are used, counted
    first_frame    number in the file of the first of them; not 0 where the frame size changes
    fps            frames per second, measured from the timestamps where they increase, otherwise
                   from the header; 0 if unknown
    height, width  frame size in pixels, rotation applied
    hp, wp         size of the canvas in patches
    tubelets       number of tubelets
    warnings       texts for the table of videos
    """

    frames: int
    first_frame: int
    fps: float
    height: int
    width: int
    hp: int
    wp: int
    tubelets: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TubeletTargets:
    """One tubelet in the form that a store holds.

    position    int8 [hp, wp, K, L, 2]
    shape       int8 [hp, wp, K, L, bins]
    moments     float32 [hp, wp, 6]: see `mme_core.targets`
    valid       uint8 [hp, wp], bit k: trajectory k
    pts         int64 [2], timestamps of the sampled frames
    frames      the coded canvases of the sampled frames, or () with spec.frames=none
    homography  float32 [L, 3, 3] on canvas pixels, or None with spec.camera=none
    first       number of the tubelet's first raw frame
    cells       arrays of `mme_core.cells` by their names in the store, [hp, wp, ...]
    """

    position: np.ndarray
    shape: np.ndarray
    moments: np.ndarray
    valid: np.ndarray
    pts: np.ndarray
    frames: tuple[bytes, ...]
    homography: np.ndarray | None
    first: int
    cells: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoTargets:
    """All n tubelets of a video, before quantisation.

    displacement  float32 [n, hp, wp, K, L, 2] canvas pixels (x, y)
    points        float32 [n, hp, wp, K, L+1, 2] canvas pixels
    hog           float32 [n, hp, wp, K, L, bins], summed gradient magnitudes
    valid         bool [n, hp, wp, K]
    position      float32, shape of displacement, normalised per patch: the paper's target
    shape         float32, shape of hog, normalised per patch: the paper's target
    moments       float32 [n, hp, wp, 6] as stored
    frames        uint8 [2n, 16 hp, 16 wp, 3], RGB canvases of the sampled frames
    pts           int64 [n, 2], timestamps of the sampled frames
    homography    float32 [n, L, 3, 3] on canvas pixels, or None with spec.camera=none
    summary       the video's metadata
    cells         {name of spec.cells: float32 [n, hp, wp, K, L, D]}; see `mme_core.cells`
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
    cells: dict[str, np.ndarray]
    __repr__ = listing
