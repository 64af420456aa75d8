"""A store's specification and a video's texts in words."""

from __future__ import annotations

import json
import re
from typing import Any

from mme_core.progress import clock
from mme_core.spec import TargetSpec

_FRAMES = {
    "jpeg": "The sampled frames are stored as JPEG files of quality {quality}.",
    "lz4": "The sampled frames are stored as YUV planes, compressed without loss by LZ4.",
    "none": "No frames are stored: training reads the video files.",
}


def describe_spec(spec: TargetSpec) -> list[str]:
    """The specification as sentences."""
    side = spec.patch // spec.grid
    followed = (
        f"the point tracker “{spec.tracks}”" if spec.tracks else f"the optical flow “{spec.flow}”"
    )
    sentences = [
        f"Every {_ordinal(spec.stride)}raw frame of a video is sampled. Two sampled frames are a "
        f"tubelet, and a tubelet starts every {spec.hop} raw frames.",
        f"Frames are resized to a shorter side of {spec.short_side} pixels and cropped in the "
        f"middle to whole patches of {spec.patch} × {spec.patch} pixels, at most "
        f"{spec.long_side} pixels on a side.",
        f"In each patch, {spec.points} points ({side} pixels apart) are followed over "
        f"{spec.length} raw frames with {followed}."
        + (
            " A forward–backward check makes unreliable trajectories invalid." if spec.check else ""
        ),
        f"Around each point, gradient directions are counted in {spec.hog_bins} bins over "
        f"{spec.hog_cell} × {spec.hog_cell} pixels (HOG), at each step of its way.",
        "The camera's motion is stored beside the trajectories, as a homography for each step."
        if spec.camera == "homography"
        else "The camera's motion is not estimated: it is part of the trajectories.",
        _FRAMES[spec.frames].format(quality=spec.jpeg_quality),
    ]
    if spec.cells:
        names = ", ".join(spec.cells)
        sentences.append(f"Descriptors of the fixed cells around the points are stored: {names}.")
    if not spec.square_pixels:
        sentences.append("Pixels are taken as square, whatever the file says.")
    return sentences


def _ordinal(number: int) -> str:
    return {1: "", 2: "second ", 3: "third "}.get(number, f"{number}th ")


def kind_of(text: str) -> str:
    """A warning or reason without its numbers, so that equal ones are counted together."""
    named = re.sub(r"'[^']*'|\"[^\"]*\"|/\S+", "…", text)
    return re.sub(r"\d+(?:[.,:]\d+)*", "N", re.sub(r": \d+( of \d+ \w+)?$", "", named))


def counted(count: int, name: str, many: str = "") -> str:
    """Such as "1 video" or "1,200 videos"; `many` is a plural that does not end in -s alone."""
    return f"{count:,} {name if count == 1 else many or f'{name}s'}"


def shorten(text: str, most: int) -> str:
    """At most `most` letters, from both ends."""
    if len(text) <= most:
        return text
    return f"{text[: most // 3]}…{text[-(most - most // 3 - 1) :]}"


def duration(seconds: float) -> str:
    """Such as 31.2 h, 1:02:03, 2:42, or 2.4 s."""
    if seconds >= 36000:
        return f"{_rounded(seconds / 3600)} h"
    return clock(seconds) if seconds >= 60 else f"{seconds:.3g} s"


def _rounded(value: float) -> str:
    """Three digits, or all of a larger whole number."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def size(count: float) -> str:
    """Bytes in the unit that fits, such as 12.3 MB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{_rounded(count / limit)} {unit}"
    return f"{count:.0f} B"


def setting(value: Any) -> str:
    """A recipe's value as a user writes it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
