"""Decodes the frames of a video in the decoder's output order, or only chosen frames.

Headers are not trusted: frames are counted, and the size of every frame is checked. A gap is
reported where a packet is broken, a frame is damaged, or a constant frame rate skips a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np

from mme_core.clock import check_deadline
from mme_core.errors import VideoError
from mme_core.io.frame import SQUARE, Frame, squared
from mme_core.io.frame_folder import FrameFolder, is_frame_folder, read_pictures
from mme_core.io.opening import check_size, open_media, video_stream
from mme_core.io.timeline import NO_PTS, Timeline

_NEARLY_SQUARE = 0.03  # rounding of frame sizes changes the aspect of square pixels by less
_WIDEST = 4  # a larger aspect ratio is treated as damage


class Video:
    """An open video file. It can be iterated once, which decodes it from the start.

    path           a local path, a URL, or `FILE.h5::NAME`
    deadline       a deadline of `mme_core.clock`
    square_pixels  stretches frames whose declared pixels are not square

    After the iteration, `timeline` describes the timestamps, and `broken_packets`,
    `damaged_frames` and `interlaced_frames` are counts. `pixel_aspect` is the declared width of a
    pixel divided by its height. Raises VideoError, whose message is the reason, for a file that
    cannot be opened, and once `deadline` has passed.
    """

    def __init__(
        self, path: str | Path, deadline: float = float("inf"), *, square_pixels: bool = True
    ) -> None:
        self._deadline = deadline
        self.broken_packets = self.damaged_frames = self.interlaced_frames = 0
        self.trouble = ""  # FFmpeg's message about the last broken packet
        self._container = open_media(path)
        try:
            self._stream = video_stream(self._container)
        except VideoError:
            self._container.close()
            raise
        self.pixel_aspect = _pixel_aspect(self._stream)
        self._stretch = self.pixel_aspect if square_pixels else SQUARE
        # AVI stores no timestamps. FFmpeg derives them from the order of the packets.
        self._has_clock = self._container.format.name != "avi"
        self.timeline = Timeline(reliable=self._has_clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def frame_rate(self) -> float:
        """Frames per second, measured so far; the header's where that fails; 0 if unknown."""
        measured = self.timeline.rate.measure(self.time_base) if self._has_clock else 0.0
        return measured or float(self._stream.average_rate or 0)

    @property
    def time_base(self) -> float:
        """Seconds per unit of pts."""
        return float(self._stream.time_base or 0)

    def __iter__(self) -> Iterator[Frame]:
        damaged = False  # whether the previous frame was damaged
        for number, picture in enumerate(self._pictures()):
            pts = NO_PTS if picture.pts is None else picture.pts
            joined = self.timeline.step(pts) and not damaged and not picture.is_corrupt
            damaged = picture.is_corrupt
            self.damaged_frames += damaged
            self.interlaced_frames += picture.interlaced_frame
            yield Frame(number, pts, joined, picture, self._stretch)

    def seek(self, pts: int) -> None:
        """Moves to the last key frame at or before `pts`. Raises VideoError where that fails."""
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
                self.trouble = error.strerror or str(error)
                self.timeline.lose(packet.pts, reorders)
                continue
            for picture in pictures:
                check_deadline(self._deadline)
                check_size(*squared(picture.height, picture.width, self._stretch))
                yield picture

    def packets(self) -> Iterator[av.Packet]:
        """Yields the video's packets in file order; the last is empty and flushes the decoder."""
        packets = self._container.demux(self._stream)
        while True:
            check_deadline(self._deadline)
            try:
                yield next(packets)
            except (StopIteration, IndexError):  # IndexError: a new stream appeared in the middle
                return
            except av.error.FFmpegError as error:  # the rest of the file is unreadable
                self.broken_packets += 1
                self.trouble = error.strerror or str(error)
                return

    def presented_pts(self) -> list[int]:
        """Returns the timestamps of the visible frames in the decoder's output order.

        This is an estimate without decoding, because a decoder may return fewer frames. Packets
        that an edit list removes and VP8's hidden reference frames are left out. Timestamps that
        start again belong to another recording: they increase within each recording.
        """
        hides = self._stream.codec_context.name in ("vp8", "libvpx")
        recordings: list[list[int]] = [[]]
        latest = NO_PTS
        for packet in self.packets():
            if not packet.size or packet.is_discard or (hides and _is_hidden_vp8(packet)):
                continue
            pts = NO_PTS if packet.pts is None else packet.pts
            # Within a recording a key frame is shown after all frames that precede it in the file.
            if packet.is_keyframe and pts <= latest:
                recordings.append([])
                latest = pts
            recordings[-1].append(pts)
            latest = max(latest, pts)
        return [pts for recording in recordings for pts in sorted(recording)]


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Returns the declared pixel aspect ratio, or 1 where it is nearly 1 or implausible."""
    declared = Fraction(stream.sample_aspect_ratio or SQUARE)
    believed = 1 / _WIDEST <= declared <= _WIDEST and abs(declared - 1) > _NEARLY_SQUARE
    return declared if believed else SQUARE


def _is_hidden_vp8(packet: av.Packet) -> bool:
    """Whether a VP8 frame is hidden. RFC 6386, section 9.1: bit 4 of the tag is `show_frame`."""
    return not memoryview(packet)[0] & 16


@dataclass(frozen=True)
class Part:
    """Consecutive frames of one size.

    first  number of the first frame
    count  number of frames
    shape  (height, width)
    """

    first: int
    count: int
    shape: tuple[int, int]


class Parts:
    """Takes a video's frames and finds the longest part of one size (the first of equal ones).

    `frames` counts all frames. `changes` counts the frames whose size differs from the previous
    frame's.
    """

    def __init__(self) -> None:
        self.frames = self.changes = 0
        self.longest: Part | None = None
        self._first, self._shape = 0, (0, 0)

    def add(self, frame: Frame) -> None:
        if frame.shape != self._shape:
            self.changes += self.frames > 0
            self._first, self._shape = self.frames, frame.shape
        self.frames += 1
        count = self.frames - self._first
        if self.longest is None or count > self.longest.count:
            self.longest = Part(self._first, count, self._shape)


def longest_part(path: str | Path, *, square_pixels: bool = True) -> Part:
    """Decodes a whole file and returns its longest part of one frame size.

    Raises VideoError where no frame can be decoded.
    """
    parts = Parts()
    with open_video(path, square_pixels=square_pixels) as video:
        for frame in video:
            parts.add(frame)
    if parts.longest is None:
        raise VideoError(f"no frame can be decoded: {video.trouble or 'there is none'}")
    return parts.longest


def open_video(
    path: str | Path, deadline: float = float("inf"), *, square_pixels: bool = True
) -> Video | FrameFolder:
    """Opens a video file or a folder of numbered pictures; arguments as of `Video`."""
    if is_frame_folder(path):
        return FrameFolder(path, deadline)
    return Video(path, deadline, square_pixels=square_pixels)


def read_frames(
    path: str | Path,
    indices: Sequence[int] | np.ndarray,
    pts: Sequence[int] | np.ndarray | None = None,
    *,
    first: int = 0,
    size: tuple[int, int] | None = None,
    square_pixels: bool = True,
) -> np.ndarray:
    """Reads chosen raw frames of a video: RGB uint8 [n, H, W, 3], rotation applied.

    indices        frame numbers, ascending, counted from `first`
    pts            timestamps of the same frames, from the store, if the timestamps of the whole
                   file increase. Decoding then starts at the key frame before the first of them.
                   Where they are not found after the seek, frames are counted from the start.
    first          number in the file of frame 0, where only a part of the file is used
    size           (height, width) that the frames must have. Default: any size
    square_pixels  as of `Video`

    Raises VideoError where the file lacks one of the frames, or where its frames have another size.
    """
    wanted = np.asarray(indices) + first
    if is_frame_folder(path):
        return _stack(read_pictures(path, wanted, pts), size)
    if pts is not None and NO_PTS not in pts and (np.diff(pts) > 0).all():
        images = _read_by_pts(path, [int(value) for value in pts], square_pixels)
        if images is not None:
            return _stack(images, size)
    images = []
    with Video(path, square_pixels=square_pixels) as video:
        for frame in video:
            if frame.number == wanted[len(images)]:
                images.append(frame.rgb())
                if len(images) == len(wanted):
                    return _stack(images, size)
    raise VideoError(f"{path}: no frame {wanted[len(images)]}; has the file changed?")


def _read_by_pts(path: str | Path, pts: list[int], square_pixels: bool) -> list[np.ndarray] | None:
    """Returns the frames with exactly these increasing pts, or None where seeking fails."""
    images: list[np.ndarray] = []
    with Video(path, square_pixels=square_pixels) as video:
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
                    return images
    return None


def _stack(images: list[np.ndarray], size: tuple[int, int] | None) -> np.ndarray:
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise VideoError("the size of the frames changes within the requested frames")
    (shape,) = shapes
    if size is not None and shape != size:
        raise VideoError(
            f"its frames are {shape[1]}×{shape[0]} and were {size[1]}×{size[0]} when the store was "
            "written; has the file changed?"
        )
    return np.stack(images)
