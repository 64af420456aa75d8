"""One decoded frame: its luma and colour images, rotated upright, with square pixels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type

from mme_core.errors import VideoError

_LIMITED_RANGE, _FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG
_Y_PLANE_FORMATS = frozenset(
    f"yuv{variant}" for variant in ("410p", "411p", "420p", "422p", "440p", "444p", "a420p")
) | {"yuvj420p", "yuvj422p", "yuvj440p", "yuvj444p", "nv12", "nv21", "nv16", "nv24"}
_FROM_LIMITED_RANGE = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)

SQUARE = Fraction(1)


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    number        index in the decoder's output order, from 0
    pts           timestamp in the stream's time base, or NO_PTS
    joined        False where frames are missing between the previous frame and this one
    picture       the decoder's output
    pixel_aspect  width of a pixel divided by its height; images are stretched to square pixels
    """

    number: int
    pts: int
    joined: bool
    picture: av.VideoFrame
    pixel_aspect: Fraction = SQUARE

    def luma(self, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Returns the resized luma, uint8 [h, w], in full range: 0 is black, 255 is white.

        Luma is the Y plane where the format has one. The plane is resized before a limited range
        is stretched, because the resized image usually has fewer pixels.
        """
        name, range_ = self.picture.format.name, self.picture.color_range
        plane = self.picture.planes[0]
        # A negative line size means that rows are stored from the bottom up.
        if name not in _Y_PLANE_FORMATS or plane.line_size < 0:
            image = np.ascontiguousarray(resize(self._upright(self._array("gray"))))
            # FFmpeg's conversion to grey stretches a limited range, except for grey formats.
            limited = name.startswith("gray") and range_ == _LIMITED_RANGE
            return cv2.LUT(image, _FROM_LIMITED_RANGE) if limited else image
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        image = resize(self._upright(rows[: self.picture.height, : self.picture.width]))
        if name.startswith("yuvj") or range_ == _FULL_RANGE:
            return image.copy()  # the decoder will reuse the plane's memory
        return cv2.LUT(image, _FROM_LIMITED_RANGE)

    def bgr(self) -> np.ndarray:
        """Returns the colour image in OpenCV's channel order BGR, uint8 [H, W, 3]."""
        return self._upright(self._array("bgr24"))

    def rgb(self) -> np.ndarray:
        """Returns the colour image, RGB uint8 [H, W, 3]."""
        return self._upright(self._array("rgb24"))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the images after rotation and stretching to square pixels."""
        size = squared(self.picture.height, self.picture.width, self.pixel_aspect)
        return size[::-1] if self._display[0] else size

    @property
    def is_stereo(self) -> bool:
        """Whether the file declares that the frame holds two stereo views."""
        about = self._side_data(Type.STEREO3D)
        return about is not None and bool(np.frombuffer(about, np.int32)[0])  # 0: AV_STEREO3D_2D

    def _side_data(self, kind: Type) -> memoryview | None:
        # PyAV's stubs declare integers as keys, but it also takes members of Type.
        data = self.picture.side_data.get(kind)  # type: ignore[call-overload]
        return None if data is None else memoryview(data)

    def _array(self, format: str) -> np.ndarray:
        try:
            return self.picture.to_ndarray(format=format, threads=1)
        except (av.error.FFmpegError, ValueError) as error:
            name = self.picture.format.name
            raise VideoError(f"pixel format {name} cannot be converted: {error}") from error

    @functools.cached_property
    def _display(self) -> tuple[bool, bool, bool]:
        """Whether to exchange rows and columns, and then whether to mirror x and to mirror y.

        This is the multiple of 90° nearest to the rotation that the file declares. Any other angle
        would leave empty corners.
        """
        matrix = self._side_data(Type.DISPLAYMATRIX)
        if matrix is None:
            return False, False, False
        # The matrix maps (x, y) to (ax + cy, bx + dy).
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)

    def _upright(self, image: np.ndarray) -> np.ndarray:
        if self.pixel_aspect != SQUARE:
            height, width = squared(image.shape[0], image.shape[1], self.pixel_aspect)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        turned, mirror_x, mirror_y = self._display
        image = cv2.transpose(image) if turned else image
        if mirror_x or mirror_y:
            image = cv2.flip(image, -1 if mirror_x and mirror_y else int(mirror_x))
        return image


def squared(height: int, width: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Returns (height, width) with square pixels. One side grows, so no detail is lost."""
    if pixel_aspect is SQUARE:  # the usual case; arithmetic of fractions takes its time
        return height, width
    if pixel_aspect >= 1:
        return height, round(width * pixel_aspect)
    return round(height / pixel_aspect), width
