"""Decoding: the frames of a file's video stream in the decoder's output order, and random access.

Nothing in a header is trusted: frames are counted, sizes are looked at frame by frame, and a gap
is found where a packet is broken, a picture is damaged or a constant rate misses a frame.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType

import av
import av.logging
import cv2
import numpy as np
from av.sidedata.sidedata import Type

from mme_core.clock import has_passed
from mme_core.errors import VideoError
from mme_core.io.containers import is_inside, read_inside
from mme_core.io.frame_folder import FrameFolder, is_frame_folder, read_pictures
from mme_core.io.remote import RemoteFile, is_url
from mme_core.io.timeline import NO_PTS, Timeline

MAX_PIXELS = 64_000_000  # of a frame; 8K is 33 million
# Of `av.open`. From version 19 on PyAV reads metadata that is not UTF-8 without being told.
OPEN_WORDS = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}

_LIMITED_RANGE, _FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG
_Y_PLANE_FORMATS = frozenset(
    f"yuv{variant}" for variant in ("410p", "411p", "420p", "422p", "440p", "444p", "a420p")
) | {"yuvj420p", "yuvj422p", "yuvj440p", "yuvj444p", "nv12", "nv21", "nv16", "nv24"}
_FROM_LIMITED_RANGE = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Frame:
    """One decoded frame. `joined` is False where a gap lies between it and the frame before."""

    number: int
    pts: int
    joined: bool
    picture: av.VideoFrame

    def luma(self, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Resized luma, uint8 [h, w]; 0 is black and 255 white whatever the file's range is.

        The Y plane is luma; it is resized before a limited range is stretched: fewer pixels.
        """
        name, range_ = self.picture.format.name, self.picture.color_range
        if name not in _Y_PLANE_FORMATS:
            image = resize(self._upright(self.picture.to_ndarray(format="gray", threads=1)))
            # FFmpeg stretches a limited range, except where it is grey already
            limited = name.startswith("gray") and range_ == _LIMITED_RANGE
            # a grey picture's rows are padded
            return cv2.LUT(image, _FROM_LIMITED_RANGE) if limited else np.ascontiguousarray(image)
        plane = self.picture.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        image = resize(self._upright(rows[: self.picture.height, : self.picture.width]))
        if name.startswith("yuvj") or range_ == _FULL_RANGE:
            return image.copy()  # the plane's memory goes back to the decoder
        return cv2.LUT(image, _FROM_LIMITED_RANGE)

    def bgr(self) -> np.ndarray:
        """Colours as OpenCV wants them, uint8 [H, W, 3]."""
        return self._upright(self.picture.to_ndarray(format="bgr24", threads=1))

    def rgb(self) -> np.ndarray:
        """Colours, uint8 [H, W, 3]."""
        return self._upright(self.picture.to_ndarray(format="rgb24", threads=1))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), rotation applied."""
        size = self.picture.height, self.picture.width
        return size[::-1] if self._display[0] else size

    @functools.cached_property
    def _display(self) -> tuple[bool, bool, bool]:
        """Does the file ask to exchange rows and columns, then to mirror x, to mirror y?

        The nearest such turn: any other angle would leave empty corners.
        """
        matrix = self.picture.side_data.get(Type.DISPLAYMATRIX)
        if matrix is None:
            return False, False, False
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # to (ax + cy, bx + dy)
        return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)

    def _upright(self, image: np.ndarray) -> np.ndarray:
        turned, mirror_x, mirror_y = self._display
        image = cv2.transpose(image) if turned else image
        if mirror_x or mirror_y:
            image = cv2.flip(image, -1 if mirror_x and mirror_y else int(mirror_x))
        return image


class Video:
    """An open file; iterating decodes it once from the start.

    After the iteration `timeline`, `broken_packets` and `damaged_frames` tell what was met. Raises
    VideoError, whose message is the reason, for a file that cannot be opened and when `deadline`
    (of `mme_core.clock`) passes.
    """

    def __init__(self, path: str | Path, deadline: float = float("inf")) -> None:
        self._deadline = deadline
        self.broken_packets = self.damaged_frames = 0
        self.trouble = ""  # what FFmpeg said of the last broken packet
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container)
        except VideoError:
            self._container.close()
            raise
        # AVI stores no timestamps: FFmpeg makes them up from the order of the packets.
        self.timeline = Timeline(reliable=self._container.format.name != "avi")

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._container.close()

    @property
    def header_rate(self) -> float:
        """Frames a second as the header says, 0 where it does not."""
        return float(self._stream.average_rate or 0)

    @property
    def time_base(self) -> float:
        """Seconds in a unit of pts."""
        return float(self._stream.time_base or 0)

    def __iter__(self) -> Iterator[Frame]:
        damaged = False  # the frame before
        for number, picture in enumerate(self._pictures()):
            pts = NO_PTS if picture.pts is None else picture.pts
            joined = self.timeline.step(pts) and not damaged and not picture.is_corrupt
            damaged = picture.is_corrupt
            self.damaged_frames += damaged
            yield Frame(number, pts, joined, picture)

    def seek(self, pts: int) -> None:
        """Goes on from the last key frame not after `pts`. Raises VideoError where that fails."""
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except av.error.FFmpegError as error:
            raise VideoError(f"cannot seek: {error.strerror}") from error

    def _pictures(self) -> Iterator[av.VideoFrame]:
        reorders = bool(self._stream.codec_context.has_b_frames)
        for packet in self.packets():
            try:
                pictures = packet.decode()
            except av.error.FFmpegError as error:
                self.broken_packets += 1
                self.trouble = error.strerror
                self.timeline.lose(packet.pts, reorders)
                continue
            for picture in pictures:
                self._check_deadline()
                check_size(picture.height, picture.width)
                yield picture

    def packets(self) -> Iterator[av.Packet]:
        """Those of the video, in the file's order; the last is empty and flushes the decoder."""
        packets = self._container.demux(self._stream)
        while True:
            self._check_deadline()
            try:
                yield next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:  # the rest of the file cannot be read
                self.broken_packets += 1
                self.trouble = error.strerror
                return

    def _check_deadline(self) -> None:
        if has_passed(self._deadline):
            raise VideoError("took longer than the time limit of a video")


def check_size(height: int, width: int) -> None:
    """Raises VideoError for a frame too large to hold in memory."""
    if height * width > MAX_PIXELS:
        raise VideoError(f"a frame of {width}×{height} is larger than {MAX_PIXELS} pixels")


def open_video(path: str | Path, deadline: float = float("inf")) -> Video | FrameFolder:
    """A video file, or a folder of numbered pictures, to be iterated once."""
    return (FrameFolder if is_frame_folder(path) else Video)(path, deadline)


def read_frames(
    path: str | Path, indices: Sequence[int], pts: Sequence[int] | None = None
) -> np.ndarray:
    """Raw frames `indices` (ascending) of a file: RGB uint8 [n, H, W, 3], rotation applied.

    With the frames' `pts` from the store the file is entered at the key frame before the first
    of them; the frames are taken where exactly these pts come up. Where the pts do not increase,
    or do not come up after the jump, frames are counted from the start, as stage 1 counted them.
    Raises VideoError where the file has not got the frames.
    """
    if is_frame_folder(path):
        return read_pictures(path, indices, pts)
    wanted = np.asarray(indices)
    if pts is not None and NO_PTS not in pts and (np.diff(pts) > 0).all():
        images = _read_by_pts(path, [int(value) for value in pts])
        if images is not None:
            return images
    images = []
    with Video(path) as video:
        for frame in video:
            if frame.number == wanted[len(images)]:
                images.append(frame.rgb())
                if len(images) == len(wanted):
                    return np.stack(images)
    raise VideoError(f"{path}: no frame {wanted[len(images)]}; has the file changed?")


def _read_by_pts(path: str | Path, pts: list[int]) -> np.ndarray | None:
    """The frames with exactly these increasing pts; None where they cannot be had by a jump."""
    images = []
    with Video(path) as video:
        if not video.timeline.increasing:
            return None
        try:
            video.seek(pts[0])
        except VideoError:
            return None
        for frame in video:
            if frame.number == 0 and not frame.picture.key_frame:
                return None
            if frame.pts > pts[len(images)] or frame.picture.is_corrupt:
                return None
            if frame.pts == pts[len(images)]:
                images.append(frame.rgb())
                if len(images) == len(pts):
                    return np.stack(images)
    return None


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream to decode, its decoder set up; VideoError where there is none."""
    if not container.streams.video:
        raise VideoError("no video stream")
    stream = container.streams.best("video") or container.streams.video[0]
    codec = stream.codec_context
    if codec is None:
        raise VideoError("FFmpeg has no decoder for the video stream")
    check_size(codec.height, codec.width)
    codec.thread_count = 1  # parallelism is over videos
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _open(path: str | Path) -> av.container.InputContainer:
    """Opens a file, local, behind a URL or inside an HDF5 file; VideoError says why it cannot be.

    Raises StoreError where it is the connection that fails.
    """
    try:
        source = _source(str(path))
        return av.open(source, **OPEN_WORDS)
    except FileNotFoundError as error:
        raise VideoError("no such file") from error
    except IsADirectoryError as error:
        raise VideoError("is a folder, not a video") from error
    except PermissionError as error:
        raise VideoError("permission denied") from error
    except (av.error.FFmpegError, OSError) as error:
        if _size(source) == 0:
            raise VideoError("the file is empty") from error
        raise VideoError(f"{_why(source)}: truncated or not a video") from error


def _source(path: str) -> str | BytesIO | RemoteFile:
    if is_inside(path):
        return read_inside(path)
    return RemoteFile(path) if is_url(path) else f"file:{path}"


def _size(source: str | BytesIO | RemoteFile) -> int:
    if isinstance(source, str):
        return Path(source.removeprefix("file:")).stat().st_size
    return source.seek(0, 2)


def _why(source: str | BytesIO | RemoteFile) -> str:
    """FFmpeg's last words on a file that does not open. Its log is off in ordinary use."""
    if not isinstance(source, str):
        source.seek(0)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():  # keeps the words off the terminal
            av.open(source).close()
    except av.error.FFmpegError as error:
        return error.log[2].strip() if error.log else error.strerror
    finally:
        av.logging.set_level(level)
    return "cannot be opened"
