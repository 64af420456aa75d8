"""A clip's worth of tubelets as read from a store: coded as stored, and as float arrays.

n tubelets, Hp × Wp patches, K points, L steps, B HOG bins. Positions are in pixels of the window
itself: its first pixel centre is (0, 0), so a crop moves the origin with it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mme_core import cells, targets
from mme_core.canvas import grid_points
from mme_core.errors import UsageError
from mme_core.frame_codec import decode_frames
from mme_core.listing import listing
from mme_core.spec import TargetSpec


@dataclass(frozen=True)
class CodedWindow:
    """n tubelets as they are stored, cut to the video's own patches.

    position    int8 [n, Hp, Wp, K, L, 2]
    shape       int8 [n, Hp, Wp, K, L, B]
    moments     float32 [n, Hp, Wp, 6]
    valid       uint8 [n, Hp, Wp], bit k: trajectory k
    pts         int64 [n, 2]; the padding of a short video has the last frame's
    frames      2n coded frames (`mme_core.frame_codec`), or () where the store has none
    homography  float32 [n, L, 3, 3], or None where the store has none
    video       the video's id
    start       number of the first tubelet on the video's time line
    spec        of the store
    cells       the arrays of `mme_core.cells` that were read, by name, [n, Hp, Wp, …]
    """

    position: np.ndarray
    shape: np.ndarray
    moments: np.ndarray
    valid: np.ndarray
    pts: np.ndarray
    frames: tuple[bytes, ...]
    homography: np.ndarray | None
    video: str
    start: int
    spec: TargetSpec
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    __repr__ = listing

    @property
    def hp(self) -> int:
        return self.valid.shape[1]

    @property
    def wp(self) -> int:
        return self.valid.shape[2]

    def decode_frames(self) -> np.ndarray:
        """Decodes the sampled frames, RGB uint8 [2n, 16 Hp, 16 Wp, 3]. There must be some."""
        return decode_frames(self.frames)

    def decode(self) -> Window:
        """Decodes the window to float arrays, exact to half the quantiser's step."""
        return Window(
            displacement=targets.decode_displacement(self.position, self.moments, self.spec),
            hog=targets.decode_hog(self.shape, self.moments, self.spec),
            valid=targets.unpack_valid(self.valid, self.spec.points),
            frames=self.decode_frames() if self.frames else None,
            homography=self.homography,
            pts=self.pts,
            spec=self.spec,
            cells=cells.decode_all(self.cells, self.spec.cells),
        )


@dataclass(frozen=True)
class Window:
    """n tubelets of one video as float arrays.

    displacement  float32 [n, Hp, Wp, K, L, 2], pixels a step (x, y), the camera's motion included
    hog           float32 [n, Hp, Wp, K, L, B], summed gradient magnitudes
    valid         bool [n, Hp, Wp, K]
    frames        uint8 [2n, 16 Hp, 16 Wp, 3], or None where the store has none
    homography    float32 [n, L, 3, 3], from frame r to r + 1, in pixels of this window; None
                  where the store has none
    pts           int64 [n, 2]
    spec          of the store
    cells         {name of spec.cells: float32 [n, Hp, Wp, K, L, D]}; see `mme_core.cells`
    """

    displacement: np.ndarray
    hog: np.ndarray
    valid: np.ndarray
    frames: np.ndarray | None
    homography: np.ndarray | None
    pts: np.ndarray
    spec: TargetSpec
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    __repr__ = listing

    @property
    def hp(self) -> int:
        return self.valid.shape[1]

    @property
    def wp(self) -> int:
        return self.valid.shape[2]

    @functools.cached_property
    def points(self) -> np.ndarray:
        """Tracked positions, float32 [n, Hp, Wp, K, L + 1, 2], pixels of this window."""
        start = grid_points(self.hp, self.wp, self.spec)[..., None, :]
        moved = np.cumsum(self.displacement, axis=-2) + start
        return np.concatenate([np.broadcast_to(start, moved[..., :1, :].shape), moved], axis=-2)

    @functools.cached_property
    def position(self) -> np.ndarray:
        """The `patch`-normalised displacement, float32 [n, Hp, Wp, K, L, 2] (Table 7b)."""
        return targets.normalise(self.displacement)

    @functools.cached_property
    def shape(self) -> np.ndarray:
        """The `patch`-normalised HOG, float32 [n, Hp, Wp, K, L, B] (Table 7b)."""
        return targets.normalise(self.hog)

    def crop(self, top: int, left: int, height: int, width: int) -> Window:
        """Returns height × width patches from patch (top, left). The origin moves with the crop.

        Raises UsageError where the crop does not lie inside the window.
        """
        if min(top, left) < 0 or min(height, width) < 1:
            raise UsageError(f"crop({top}, {left}, {height}, {width}) is not a crop")
        if top + height > self.hp or left + width > self.wp:
            raise UsageError(
                f"crop({top}, {left}, {height}, {width}) leaves the {self.hp}×{self.wp} patches"
            )
        rows, columns = slice(top, top + height), slice(left, left + width)
        side = self.spec.patch
        frames, homography = self.frames, self.homography
        if frames is not None:
            frames = frames[
                :, top * side : (top + height) * side, left * side : (left + width) * side
            ]
        if homography is not None:
            homography = crop_homography(homography, left * side, top * side)
        return dataclasses.replace(
            self,
            displacement=self.displacement[:, rows, columns],
            hog=self.hog[:, rows, columns],
            valid=self.valid[:, rows, columns],
            frames=frames,
            homography=homography,
            cells={name: values[:, rows, columns] for name, values in self.cells.items()},
        )

    def flip(self) -> Window:
        """Returns the mirror image (left and right exchanged): a permutation and a sign."""
        order = flip_points(self.spec.points)
        displacement = self.displacement[:, :, ::-1, order] * np.array([-1, 1], np.float32)
        frames, homography = self.frames, self.homography
        if frames is not None:
            frames = np.ascontiguousarray(frames[:, :, ::-1])  # torch takes no negative stride
        if homography is not None:
            homography = flip_homography(homography, self.wp * self.spec.patch)
        return dataclasses.replace(
            self,
            displacement=displacement,
            hog=self.hog[:, :, ::-1, :, :, ::-1][:, :, :, order],  # the last index copies
            valid=self.valid[:, :, ::-1, order],
            frames=frames,
            homography=homography,
            cells={
                name: values[:, :, ::-1, order][..., cells.mirrored(name, self.spec)]
                for name, values in self.cells.items()
            },
        )


def flip_points(points: int) -> np.ndarray:
    """Returns the point that takes the place of each of the K points in the mirror image, int [K].

    K = 4 gives [1, 0, 3, 2].
    """
    side = int(points**0.5)
    return np.arange(points).reshape(side, side)[:, ::-1].ravel()


def crop_homography(homography: np.ndarray, x: float, y: float) -> np.ndarray:
    """Returns homographies [..., 3, 3] for pixels that are counted from (x, y), float32."""
    there = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], np.float64)
    back = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
    return (there @ homography @ back).astype(np.float32)


def flip_homography(homography: np.ndarray, width: int) -> np.ndarray:
    """Returns homographies [..., 3, 3] of the mirror image, float32. `width`: of the image, px."""
    mirror = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], np.float64)
    return (mirror @ homography @ mirror).astype(np.float32)
