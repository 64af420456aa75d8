"""Opens a video safely: FFmpeg reads one media file only, and the size of frames is limited."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import av.logging
from av.stream import Disposition

from mme_core.errors import UsageError, VideoError
from mme_core.io.containers import is_inside, read_inside
from mme_core.io.remote import RemoteFile, is_url

Source = str | BytesIO | RemoteFile

MAX_PIXELS = 36_000_000  # default limit of a frame; 8K has 33 million pixels
PIXELS_VARIABLE = "MME_MAX_PIXELS"

# FFmpeg's demuxers that read one file and may hold moving pictures. Common sound formats are
# included so that sound files get a clear error message. The demuxers that are left out read other
# files (HLS, DASH, concat, IMF, MLV, VobSub, numbered pictures), the network (SDP, RTSP), devices,
# or text as pictures.
_FORMATS = """
3dostr 4xm aac aiff amr anm apng apv argo_brp asf asf_o av1 avi avs avs2 avs3 bethsoftvid bfi bink
bmv c93 cavsvideo cdg cdxl cine dfa dhav dirac dnxhd dsicin dv dxa ea evc film_cpk filmstrip flac
flic flv gdv gif gxf h261 h263 h264 hevc hnm hxvs idcin iff ifv ingenient ipmovie ipu iv8 ivf ivr
jpegxl_anim jv kux live_flv lmlm4 lvf lxf m4v matroska mgsts mjpeg mjpeg_2000 mm mods moflex mov
mp3 mp4 mpeg mpegts mpegvideo mpjpeg msnwctcp mtv mv mvi mxf mxg nc nsv nut nuv obu ogg paf pdv pmp
psxstr pva r3d rl2 rm roq rpl ser sga siff simbiosis_imx smjpeg smk smush swf thp tiertexseq tmv ty
usm vc1 vc1test vidc vividas vivo vmd vvc wav wc3movie webm wsvqa wtv wv xmv yop yuv4mpegpipe
"""
# PyAV 19 and newer read metadata that is not UTF-8 without this option.
_OLD_PYAV = int(av.__version__.partition(".")[0]) < 19
_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if _OLD_PYAV else {}

_STILL = "a still picture, not a video"
_LIST = "a list of other files or addresses"
_STARTS = {  # first bytes of a file: the reason for refusing it
    b"\xff\xd8\xff": _STILL,
    b"\x89PNG\r\n\x1a\n": _STILL,
    b"BM": _STILL,
    b"II*\0": _STILL,
    b"MM\0*": _STILL,
    b"\0\0\0\x0cJXL ": _STILL,
    b"\xff\x0a": _STILL,
    b"\0\0\0\x0cjP  ": _STILL,
    b"P5\n": _STILL,
    b"P6\n": _STILL,
    b"#EXTM3U": f"{_LIST} (HLS), not a video",
    b"ffconcat version": f"{_LIST} (ffconcat), not a video",
    b"v=0": f"{_LIST} (SDP), not a video",
}


def open_media(path: str | Path) -> av.container.InputContainer:
    """Opens a video file that is local, behind a URL, or inside an HDF5 file.

    FFmpeg may read only this file, and only as a media container. Raises VideoError, whose message
    says why the file cannot be used, and UrlError where the connection fails.
    """
    source = _source(str(path))
    try:
        return _open(source)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = _why_refused(source)
        raise VideoError(reason or f"{_last_words(source)}: truncated or not a video") from error


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Returns the video stream, ready to decode. Raises VideoError where there is none."""
    streams = container.streams.video
    moving = [one for one in streams if not one.disposition & Disposition.attached_pic]
    if streams and not moving:
        raise VideoError(f"the cover picture of a sound file: {_STILL}")
    if not moving:
        raise VideoError("no video stream")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    codec = stream.codec_context
    if codec is None:
        raise VideoError("FFmpeg has no decoder for the video stream")
    check_size(codec.height, codec.width)
    codec.thread_count = 1  # videos are processed in parallel, not the frames of one video
    codec.options = {"max_pixels": str(max_pixels())}
    return stream


def max_pixels() -> int:
    """Returns the largest allowed number of pixels of a frame: MME_MAX_PIXELS, or MAX_PIXELS.

    Raises UsageError where the environment variable is not a positive whole number.
    """
    text = os.environ.get(PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{PIXELS_VARIABLE}={text} must be a whole number of pixels")
    return int(text)


def check_size(height: int, width: int) -> None:
    """Raises VideoError for a frame with more than `max_pixels` pixels."""
    if height * width > max_pixels():
        raise VideoError(
            f"a frame of {width}×{height} is larger than {max_pixels()} pixels, the limit that "
            f"bounds memory; set {PIXELS_VARIABLE} to raise it"
        )


def _source(path: str) -> Source:
    if is_inside(path):
        return read_inside(path)
    if is_url(path):
        try:
            return RemoteFile(path)
        except FileNotFoundError as error:
            raise VideoError("no such file") from error
    _check_file(path)
    return f"file:{path}"


def _check_file(path: str) -> None:
    """Raises VideoError for a path that is not a readable file, before FFmpeg can wait for it."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoError("no such file") from error
    except OSError as error:  # symbolic links in a circle, or a name that is too long
        raise VideoError(f"cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise VideoError(f"cannot be opened: {error}") from error
    if stat.S_ISDIR(mode):
        raise VideoError("is a folder, not a video")
    if not stat.S_ISREG(mode):
        raise VideoError("is a pipe, a socket or a device, not a file")
    if not os.access(path, os.R_OK):
        raise VideoError("permission denied")


def _open(source: Source) -> av.container.InputContainer:
    options = {
        "format_whitelist": ",".join(_FORMATS.split()),
        "protocol_whitelist": "file" if isinstance(source, str) else "none",
    }
    return av.open(source, "r", container_options=options, **_METADATA)


def _why_refused(source: Source) -> str:
    """Returns why a file with these first bytes is refused; "" for unknown bytes."""
    if isinstance(source, str):
        with Path(source.removeprefix("file:")).open("rb") as file:
            start = file.read(64)
    else:
        source.seek(0)
        start = source.read(64)
    if not start:
        return "the file is empty"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        if start[12:16] == b"VP8X" and start[20] & 2:
            return "an animated WebP, which FFmpeg does not decode: convert it to mp4 or gif"
        return _STILL
    if b"<MPD" in start or (start.startswith(b"<?xml") and b"MPD" in start):
        return f"{_LIST} (DASH), not a video"
    return next((why for prefix, why in _STARTS.items() if start.startswith(prefix)), "")


def _last_words(source: Source) -> str:
    """Returns FFmpeg's last message about a file that does not open.

    FFmpeg's log is normally off, so the file is opened once more with the log switched on.
    """
    if not isinstance(source, str):
        source.seek(0)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():  # keeps the messages off the terminal
            _open(source).close()
    except av.error.FFmpegError as error:
        log: Any = error.log  # PyAV's stubs lack its third part, the message
        words = str(log[2].strip() if log else error.strerror)
        return "not a video format" if "whitelist" in words else words
    except ValueError as error:
        return str(error)
    finally:
        av.logging.set_level(level)
    return "cannot be opened"
