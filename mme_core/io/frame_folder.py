"""A video as a folder of pictures, `VIDEO/00001.jpg` …, as in Jester and Something-Something V1.

The number of a picture gives its order and is its timestamp. The frame rate is unknown (0). Frames
are missing between two numbers that are further apart than usual in the folder.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

import numpy as np

from mme_core.clock import check_deadline
from mme_core.errors import VideoError
from mme_core.io.containers import is_inside
from mme_core.io.place import open_place
from mme_core.io.remote import is_url
from mme_core.io.timeline import Timeline

if TYPE_CHECKING:
    import av

    from mme_core.io.frame import Frame

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

_NUMBER = re.compile(r"(?P<before>.*?)(?P<number>\d{1,18})(?P<after>\D*)")
_DECODERS = {b"\xff\xd8": "mjpeg", b"\x89P": "png"}  # by a file's first bytes
# TSN's folders hold img_00001.jpg beside optical flow: flow_x_00001.jpg and flow_y_00001.jpg.
_FLOW = "flow_"


def picture_numbers(names: Iterable[str]) -> dict[int, str]:
    """Returns {number: name} of a video's frames, in order. Empty for fewer than two frames.

    The names of a video's frames differ only in their last number. Where a folder holds several
    such series, the longest is the video. Pictures of optical flow are ignored. Raises VideoError
    where two series have the same, largest length.
    """
    series: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        path = PurePosixPath(name)
        match = _NUMBER.fullmatch(path.stem)
        if match and path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith(_FLOW):
            series[match["before"], match["after"] + path.suffix][int(match["number"])] = name
    if not series:
        return {}
    longest = max(map(len, series.values()))
    if longest < 2:
        return {}
    best = [key for key, numbers in series.items() if len(numbers) == longest]
    if len(best) > 1:
        shown = ", ".join(sorted(f"{before}…{after}" for before, after in best)[:3])
        raise VideoError(f"the folder holds several series of pictures ({shown}): keep one of them")
    return dict(sorted(series[best[0]].items()))


def is_frame_folder(path: str | Path) -> bool:
    """Whether the path or URL is a folder. A URL that ends like a.mp4 is taken for a file."""
    text = str(path)
    if is_inside(text):
        return False
    if is_url(text) and re.search(r"\.\w{1,5}$", text):
        return False
    return open_place(text).is_folder()


class FrameFolder:
    """The pictures of a folder, with the interface of `mme_core.io.video.Video`.

    A picture that cannot be decoded counts as a broken packet. Raises VideoError, whose message is
    the reason, for a folder without numbered pictures, and once `deadline` has passed.
    """

    frame_rate = 0.0
    time_base = 0.0
    interlaced_frames = 0
    pixel_aspect = Fraction(1)

    def __init__(self, path: str | Path, deadline: float = float("inf")) -> None:
        self._place, self._deadline = open_place(path), deadline
        self.broken_packets = self.damaged_frames = 0
        self.trouble = ""
        self.timeline = Timeline(reliable=True)
        self._names = picture_numbers(self._place.names())
        if not self._names:
            raise VideoError("is a folder, neither a video nor numbered pictures (00001.jpg …)")
        self.numbers = np.array(list(self._names), np.int64)  # numbers in file names, used as pts
        self._usual = int(np.median(np.diff(self.numbers)))

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing: no file stays open."""

    def __iter__(self) -> Iterator[Frame]:
        from mme_core.io.frame import Frame

        timeline, damaged, number = self.timeline, False, 0
        for pts in self._names:
            check_deadline(self._deadline)
            try:
                picture = self.decode(pts)
            except VideoError as error:
                self.broken_packets += 1
                self.trouble = str(error)
                continue
            whole = timeline.last is None or pts - timeline.last <= self._usual
            timeline.gaps += not whole
            timeline.last = pts
            joined = whole and not damaged and not picture.is_corrupt
            damaged = picture.is_corrupt
            self.damaged_frames += damaged
            yield Frame(number, pts, joined, picture)
            number += 1

    def decode(self, pts: int) -> av.VideoFrame:
        """Decodes the picture of this number. Raises VideoError where it is missing or broken.

        The bytes go straight to a decoder for JPEG or PNG, so a file cannot choose a decoder.
        """
        import av

        from mme_core.io.opening import check_size, max_pixels

        try:
            data = self._place.read(self._names[pts])
        except KeyError as error:
            raise VideoError(f"{self._place.url}: no picture {pts}; has it changed?") from error
        except OSError as error:
            raise VideoError(f"{self._names[pts]}: {error.strerror or error}") from error
        decoder = _DECODERS.get(data[:2])
        if decoder is None:
            raise VideoError(f"{self._names[pts]}: neither JPEG nor PNG")
        codec = cast("av.VideoCodecContext", av.CodecContext.create(decoder, "r"))
        codec.thread_count, codec.options = 1, {"max_pixels": str(max_pixels())}
        try:
            pictures = [*codec.decode(av.Packet(data)), *codec.decode(None)]
        except (av.error.FFmpegError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"{self._names[pts]}: {reason}") from error
        if not pictures:
            raise VideoError(f"{self._names[pts]}: cannot be decoded")
        check_size(pictures[0].height, pictures[0].width)
        return pictures[0]


def read_pictures(
    path: str | Path,
    indices: Sequence[int] | np.ndarray,
    pts: Sequence[int] | np.ndarray | None,
) -> list[np.ndarray]:
    """Reads chosen pictures of a folder: a list of RGB uint8 [H, W, 3].

    Arguments and errors as of `mme_core.io.video.read_frames`.
    """
    from mme_core.io.frame import Frame

    with FrameFolder(path) as folder:
        if pts is not None:
            frames = (Frame(0, int(value), True, folder.decode(int(value))) for value in pts)
            images = [frame.rgb() for frame in frames]
        else:
            wanted = set(map(int, indices))
            first = itertools.islice(folder, max(wanted) + 1)
            images = [frame.rgb() for frame in first if frame.number in wanted]
    if len(images) < len(indices):
        raise VideoError(f"{path}: no frame {indices[len(images)]}; has the folder changed?")
    return images
