"""Writes pictures to files: mp4 (h264), looped gif, png."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import av.filter
import cv2
import numpy as np
from av.filter.context import FilterContext

from mme_core.errors import MMEError, UsageError, naming


def write_png(path: Path, picture: np.ndarray) -> None:
    """Writes an RGB uint8 picture."""
    coded = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 6])[1]
    with naming(path):
        path.write_bytes(coded.tobytes())


def write_film(path: Path, pictures: Iterable[np.ndarray], fps: float) -> int:
    """Writes RGB uint8 pictures of one size to .mp4 (h264) or .gif (looped); returns their number.

    Raises UsageError for another suffix, and MMEError if there is no picture. Leaves no part of a
    film behind if the disk is full or the caller is interrupted.
    """
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix.lower() not in writers:
        raise UsageError(f"{path}: the suffix of a film must be .mp4 or .gif, of a picture .png")
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise MMEError(f"{path}: there is no picture to write")
    rate = Fraction(fps).limit_denominator(1000)
    write = writers[path.suffix.lower()]
    try:
        return write(path, first.shape[:2], chain([first], pictures), rate)
    except BaseException:  # a full disk, a Ctrl-C: half a film is of no use
        if path.is_file():
            path.unlink()
        raise


def _write_mp4(
    path: Path, size: tuple[int, int], pictures: Iterable[np.ndarray], rate: Fraction
) -> int:
    height, width = (side // 2 * 2 for side in size)  # chroma is stored at half the resolution
    count = 0
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in pictures:
            even = np.ascontiguousarray(picture[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, "rgb24")))
            count += 1
        container.mux(stream.encode())
    return count


def _write_gif(
    path: Path, size: tuple[int, int], pictures: Iterable[np.ndarray], rate: Fraction
) -> int:
    """Uses one palette for the whole film, so that still areas do not flicker."""
    source, sink, _graph = _palette_graph(*size, rate)
    count = 0
    for picture in pictures:
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = count, 1 / rate
        source.push(frame)
        count += 1
    source.push(None)
    with av.open(str(path), "w", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "pal8"
        for _ in range(count):
            container.mux(stream.encode(cast(av.VideoFrame, sink.pull())))
        container.mux(stream.encode())
    return count


def _palette_graph(
    height: int, width: int, rate: Fraction
) -> tuple[FilterContext, FilterContext, av.filter.Graph]:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width,
        height=height,
        format="rgb24",  # type: ignore[arg-type]  # PyAV's stubs leave out names of formats
        time_base=1 / rate,
    )
    split, palette, sink = graph.add("split"), graph.add("palettegen"), graph.add("buffersink")
    use = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return source, sink, graph  # the graph must live as long as its ends
