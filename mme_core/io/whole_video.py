"""All frames of a video as one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mme_core.errors import VideoError
from mme_core.io.video import open_video


def read_video(path: str | Path) -> np.ndarray:
    """Reads all frames of a video, as stage 1 and `mme features` see them: RGB uint8 [T, H, W, 3].

    path  a video file, a URL, `FILE.h5::NAME`, or a folder of numbered pictures

    Frames are upright, as the file declares its rotation, and have square pixels: where a file
    declares others, the frames are stretched. Where the frame size changes, the frames are those
    of the longest part of one size.

    The array holds 3·T·H·W bytes, and reading needs twice that: 370 MB for ten seconds of 30
    frames of 640×640 pixels, and 11 GB for one minute of 1920×1080.

    Raises VideoError, whose message is the reason, where the file is missing or no frame can be
    decoded, and UrlError where a URL cannot be read.
    """
    longest: list[np.ndarray] = []
    part: list[np.ndarray] = []
    with open_video(path) as video:
        for frame in video:
            image = frame.rgb()
            if part and image.shape != part[0].shape:
                part = []
            part.append(image)
            if len(part) > len(longest):
                longest = part
        if not longest:
            raise VideoError(f"no frame can be decoded: {video.trouble or 'there is none'}")
    return np.stack(longest)
