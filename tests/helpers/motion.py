"""Textures that move by exactly known affine motions, and files of them.

A texture is a sum of random waves. Under an affine motion a wave stays a product of a function of
x and a function of y, so a frame is one matrix product: exact at every sub-pixel position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# frame number -> float64 [2, 3], where a point (x, y, 1) of frame 0 is in that frame
Motion = Callable[[float], np.ndarray]


def translation(dx: float, dy: float) -> Motion:
    """dx, dy pixels a frame."""
    return lambda r: np.array([[1, 0, r * dx], [0, 1, r * dy]], float)


def rotation(degrees: float, centre: tuple[float, float]) -> Motion:
    """`degrees` a frame about `centre` (x, y)."""

    def matrix(r: float) -> np.ndarray:
        angle = np.radians(degrees) * r
        return _about(
            centre, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        )

    return matrix


def zoom(factor: float, centre: tuple[float, float]) -> Motion:
    """Larger by `factor` each frame, about `centre` (x, y)."""
    return lambda r: _about(centre, np.eye(2) * factor**r)


def _about(centre: tuple[float, float], linear: np.ndarray) -> np.ndarray:
    centre = np.array(centre, float)
    return np.column_stack([linear, centre - linear @ centre])


def render(
    motion: Motion, count: int, height: int, width: int, seed: int = 0, finest: float = 8.0
) -> np.ndarray:
    """uint8 [count, height, width]; `finest` is the shortest wave in pixels."""
    rng = np.random.default_rng(seed)
    waves = 150
    period = finest * 16 ** rng.random(waves)
    angle = rng.uniform(0, 2 * np.pi, waves)
    frequency_2K = 2 * np.pi / period * np.stack([np.cos(angle), np.sin(angle)])
    phase_K = rng.uniform(0, 2 * np.pi, waves)
    amplitude_K = period**0.5
    amplitude_K *= 40 / np.sqrt((amplitude_K**2).sum() / 2)
    frames = np.empty((count, height, width), np.uint8)
    for r in range(count):
        matrix = motion(r)
        linear = np.linalg.inv(matrix[:, :2])
        x_K, y_K = frequency_2K.T @ linear[:, 0], frequency_2K.T @ linear[:, 1]
        start_K = phase_K - frequency_2K.T @ linear @ matrix[:, 2]
        rows_HK = np.exp(1j * np.outer(np.arange(height), y_K))
        columns_KW = np.exp(1j * (np.outer(x_K, np.arange(width)) + start_K[:, None]))
        image = 128 + ((rows_HK * amplitude_K) @ columns_KW).real
        frames[r] = np.clip(np.rint(image), 0, 255)
    return frames


def displacement(motion: Motion, r: float, points: np.ndarray) -> np.ndarray:
    """Exact displacement from frame r to r + 1 of points (x, y) [..., 2] of frame r."""
    start, end = motion(r), motion(r + 1)
    origin = (points - start[:, 2]) @ np.linalg.inv(start[:, :2]).T
    return origin @ end[:, :2].T + end[:, 2] - points


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    rate: int = 30,
    pts: Iterable[int] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Writes uint8 frames, grey [H, W] or RGB [H, W, 3], almost without loss.

    `pts` are in 1 / (512 · rate) of a second; evenly spaced by default.
    """
    frames = list(frames)
    height, width = frames[0].shape[:2]
    pts = range(0, 512 * len(frames), 512) if pts is None else pts
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.options = {"crf": "4", "preset": "ultrafast"} if options is None else options
        stream.codec_context.time_base = Fraction(1, 512 * rate)
        for frame, stamp in zip(frames, pts):
            picture = av.VideoFrame.from_ndarray(frame, "gray" if frame.ndim == 2 else "rgb24")
            picture = picture.reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = stamp, stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
