"""Scenes whose motion is known exactly, coded by real codecs at ordinary quality.

A scene is a textured background and two textured discs in front of it, each with its own affine
motion. A frame is drawn at twice its size and shrunk, so its pixels are averages as in a camera.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

HEIGHT, WIDTH, FRAMES = 256, 340, 8
_FINE = 2  # side of a drawn frame over that of the scene's
_MIDDLE = np.array([WIDTH / 2, HEIGHT / 2])

# name: FFmpeg's encoder and its options. Qualities are those of ordinary files.
CODECS = {
    "h264": ("libx264", {"crf": "23"}),
    "mpeg4": ("mpeg4", {"qscale": "5", "flags": "+qscale", "global_quality": str(5 * 118)}),
}

# frame number -> float64 [2, 3]: where a point (x, y, 1) of frame 0 is in that frame
Motion = Callable[[float], np.ndarray]


@dataclass(frozen=True)
class Layer:
    """texture: uint8 [h, w]; a disc of `radius` pixels about `centre` (x, y) in frame 0, or all."""

    texture: np.ndarray
    motion: Motion
    centre: tuple[float, float] = (0, 0)
    radius: float = math.inf


@dataclass(frozen=True)
class Scene:
    """frames uint8 [T, H, W] as decoded, flow float32 [T − 1, H, W, 2] as drawn, vectors per pair.

    `vectors` are the codec's motion vectors as flow, float32 [T − 1, H, W, 2].
    """

    name: str
    codec: str
    frames: np.ndarray
    flow: np.ndarray
    vectors: np.ndarray


def scenes(photographs: Sequence[np.ndarray]) -> Iterator[Scene]:
    """Yields every scene in every codec. Textures: grey photographs, and noise where there is none.

    photographs  uint8 [h, w]
    """
    rng = np.random.default_rng(0)
    for number, (name, motion) in enumerate(_MOTIONS.items()):
        textures = [_texture(rng, photographs, 3 * number + place) for place in range(3)]
        layers = [
            Layer(textures[0], motion),
            Layer(textures[1], _after(motion, affine(dx=2.5, dy=-1.5)), (95, 90), 45),
            Layer(textures[2], _after(motion, affine(degrees=2, dx=-1)), (245, 165), 55),
        ]
        frames, flow = _draw(layers)
        for codec in CODECS:
            decoded, vectors = _coded(frames, codec)
            yield Scene(name, codec, decoded, flow, vectors)


def affine(dx: float = 0, dy: float = 0, degrees: float = 0, factor: float = 1) -> Motion:
    """Moves by (dx, dy) pixels, turns and grows about the middle, each frame."""

    def matrix(r: float) -> np.ndarray:
        angle, scale = math.radians(degrees) * r, factor**r
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        return np.column_stack([linear, _MIDDLE - linear @ _MIDDLE + np.array([dx, dy]) * r])

    return matrix


_MOTIONS = {
    "pan 0.9 px": affine(dx=0.9, dy=-0.3),
    "pan 4.3 px": affine(dx=-3.7, dy=2.2),
    "pan 12 px": affine(dx=11.3, dy=5.4),
    "turn 1.2°": affine(degrees=1.2),
    "zoom 1.02": affine(factor=1.02),
    "zoom 1 / 1.03": affine(factor=1 / 1.03, dx=1),
    "still": affine(),
}


def _after(first: Motion, second: Motion) -> Motion:
    """`second` seen from a camera that moves by `first`."""

    def matrix(r: float) -> np.ndarray:
        outer, inner = first(r), second(r)
        linear = outer[:, :2] @ inner[:, :2]
        return np.column_stack([linear, outer[:, :2] @ inner[:, 2] + outer[:, 2]])

    return matrix


def _texture(
    rng: np.random.Generator, photographs: Sequence[np.ndarray], number: int
) -> np.ndarray:
    if photographs:
        return photographs[number % len(photographs)]
    image = np.zeros((480, 640), np.float32)
    for grain in (2, 4, 8, 16, 32, 64):  # every octave is as strong as its size: as in nature
        small = rng.standard_normal((480 // grain + 3, 640 // grain + 3)).astype(np.float32)
        large = cv2.resize(small, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
        image += grain**0.7 * large[:480, :640]
    return np.clip(128 + 50 * image / image.std(), 0, 255).astype(np.uint8)


def _draw(layers: Sequence[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """The frames, uint8 [T, H, W], and the flow of the front layer, float32 [T − 1, H, W, 2]."""
    frames = np.empty((FRAMES, HEIGHT, WIDTH), np.uint8)
    flow = np.empty((FRAMES - 1, HEIGHT, WIDTH, 2), np.float32)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    points = np.stack([x, y], -1).astype(float)
    for r in range(FRAMES):
        fine = np.zeros((_FINE * HEIGHT, _FINE * WIDTH), np.uint8)
        for layer in layers:
            _lay(fine, layer, r)
        frames[r] = cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        if r == FRAMES - 1:
            return frames, flow
        for layer in layers:
            start, end = layer.motion(r), layer.motion(r + 1)
            origin = (points - start[:, 2]) @ np.linalg.inv(start[:, :2]).T
            covered = np.linalg.norm(origin - layer.centre, axis=-1) <= layer.radius
            flow[r][covered] = (origin @ end[:, :2].T + end[:, 2] - points)[covered]
    raise AssertionError


def _lay(fine: np.ndarray, layer: Layer, r: int) -> None:
    """Draws the layer over the image, which is _FINE times as large as the scene."""
    height, width = layer.texture.shape
    to_fine = np.vstack([_FINE * layer.motion(r), [0, 0, 1]])
    to_fine[:2, 2] += (_FINE - 1) / 2  # centres of pixels
    scale = 0.75 * max(WIDTH / width, HEIGHT / height)  # texture pixel -> pixel of frame 0
    middle = _MIDDLE if math.isinf(layer.radius) else np.array(layer.centre)
    place = np.eye(3)
    place[:2] = np.column_stack([scale * np.eye(2), middle - scale * np.array([width, height]) / 2])
    size = fine.shape[::-1]
    matrix = (to_fine @ place)[:2]
    image = cv2.warpAffine(
        layer.texture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    if math.isinf(layer.radius):
        fine[:] = image
        return
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    back = np.linalg.inv(to_fine)
    origin = np.stack([x, y], -1) @ back[:2, :2].T + back[:2, 2]
    inside = np.linalg.norm(origin - layer.centre, axis=-1) <= layer.radius
    fine[inside] = image[inside]


def _coded(frames: np.ndarray, codec: str) -> tuple[np.ndarray, np.ndarray]:
    """The frames after coding, and the codec's motion vectors of every pair."""
    encoder, options = CODECS[codec]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        stream.codec_context.thread_count = 1
        pictures = list(container.decode(stream))
        decoded = np.stack([picture.to_ndarray(format="gray") for picture in pictures])
        vectors = np.stack([_vectors(picture) for picture in pictures[1:]])
    return decoded, vectors


def _vectors(picture: av.VideoFrame) -> np.ndarray:
    """The vectors from the previous picture as flow: float32 [H, W, 2], zero where there is none.

    The codec does not say how far away a reference picture is: this takes all for neighbours.
    """
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    found = picture.side_data.get("MOTION_VECTORS")
    for vector in found or ():
        if vector.source < 0:
            # from where it is in this picture (dst) to where it was in the previous one (src)
            left, top = vector.src_x - vector.w // 2, vector.src_y - vector.h // 2
            block = flow[max(top, 0) : top + vector.h, max(left, 0) : left + vector.w]
            block[:] = (
                -vector.motion_x / vector.motion_scale,
                -vector.motion_y / vector.motion_scale,
            )
    return flow


def photographs_of(folder: Path) -> list[np.ndarray]:
    """The Middlebury scenes' first frames, grey."""
    return [
        cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for path in sorted((folder / "other-data").glob("*/frame10.png"))
    ]
