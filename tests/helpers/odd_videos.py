"""Video files that are out of the ordinary: glued, cut by an edit list, of other pixels."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from motion import write_video


def write_parts(
    path: Path, parts: Sequence[np.ndarray], options: dict[str, str] | None = None
) -> Path:
    """Glued recordings (.ts or .mkv); each of the parts [n, H, W] may have another frame size.

    The timestamps of each start again. options: as of `write_video`.
    """
    data = b""
    for number, frames in enumerate(parts):
        part = path.with_name(f"{path.stem} {number}{path.suffix}")
        write_video(part, frames, options=options)
        data += part.read_bytes()
        part.unlink()
    path.write_bytes(data)
    return path


def write_aspect(path: Path, frames: np.ndarray, pixel_aspect: Fraction) -> Path:
    """Grey frames [n, H, W] whose pixels are declared not to be square."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4"})
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        for image in frames:
            picture = av.VideoFrame.from_ndarray(image, "gray")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def write_turned(
    path: Path, frames: Sequence[np.ndarray], matrix: tuple[float, float, float, float]
) -> Path:
    """An mp4 that declares the display matrix (a, b, c, d): (x, y) is shown at (ax+cy, bx+dy)."""
    write_video(path, frames)
    data = path.read_bytes()
    one = 1 << 16
    identity = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = (round(value * one) for value in matrix)
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    place = data.index(identity, data.index(b"tkhd"))
    path.write_bytes(data[:place] + turned + data[place + 36 :])
    return path


def write_edited(path: Path, frames: np.ndarray, cut: int) -> Path:
    """An mp4 whose edit list cuts away the first `cut` frames, and all after 1 s more."""
    write_video(path, frames, options={"crf": "18", "bf": "2", "g": "12"})
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12  # one entry: duration in ms, start in 1/15360 s
    start = struct.unpack_from(">i", data, place + 4)[0]
    struct.pack_into(">Ii", data, place, 1000, start + 512 * cut)
    path.write_bytes(data)
    return path
