"""`demo`: generated videos whose class is the motion alone.

Textured objects in front of a textured background. What an object does (moves left, turns, grows,
shakes …) is the class; textures, shapes, sizes, places, speeds and the camera's drift are drawn
without regard to it, so a single frame says nothing. Video i of a seed is always the same file,
whatever the number of videos. A horizontal flip changes some classes into others.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from mme_core.datasets.folder import SPLIT_FILE
from mme_core.datasets.manifest import Manifest, VideoItem, sort_items
from mme_core.errors import UsageError
from mme_core.io.remote import is_url

HEIGHT, WIDTH, FRAMES, FPS = 128, 160, 72, 30
_TILE = 96  # side of an object's texture, pixels
_STRIPES, _ACROSS = 2.4, 0.9  # strength of the stripes, and of those across them
_USUAL = 100  # videos of a new set
_NOTE = "demo.json"  # says which seed made the folder

# pose of an object at frame t for a speed v near 1: (x px, y px, angle rad, log of the scale)
Pose = tuple[float, float, float, float]
MOTIONS: dict[str, Callable[[float, float], Pose]] = {
    "bounce": lambda t, v: (0, 6 * math.sin(0.45 * v * t), 0, 0),
    "down": lambda t, v: (0, 1.6 * v * t, 0, 0),
    "grow": lambda t, v: (0, 0, 0, 0.018 * v * (t - FRAMES / 2)),
    "left": lambda t, v: (-1.6 * v * t, 0, 0, 0),
    "right": lambda t, v: (1.6 * v * t, 0, 0, 0),
    "shake": lambda t, v: (6 * math.sin(0.45 * v * t), 0, 0, 0),
    "shrink": lambda t, v: (0, 0, 0, -0.018 * v * (t - FRAMES / 2)),
    "turn_left": lambda t, v: (0, 0, -0.08 * v * t, 0),
    "turn_right": lambda t, v: (0, 0, 0.08 * v * t, 0),
    "up": lambda t, v: (0, -1.6 * v * t, 0, 0),
}
CLASSES = tuple(sorted(MOTIONS))


def load(
    root: str,
    split: str | None,
    videos: int | None = None,
    seed: int | None = None,
    generate: bool = True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Lists the demo set in `root`. Missing videos are made.

    videos    number of videos; one in five (of each class) is `val`, the rest `train`. Default: as
              many as the folder holds, or 100 in a new folder
    seed      random seed of everything. Default: the folder's, or 0 in a new folder
    generate  makes the missing videos; False: makes none
    report    called after each video with the numbers of videos made and to be made

    Raises UsageError for a wrong argument, and for a folder that holds something else.
    """
    if videos is not None and videos < 1:
        raise UsageError(f"a demo set of {videos} videos; it needs at least 1")
    if seed is not None and seed < 0:
        raise UsageError(f"seed={seed} of the demo set must be at least 0")
    if split not in (None, "train", "val"):
        raise UsageError(f"the demo set has no split '{split}'; it has train and val")
    if is_url(root):
        raise UsageError(
            f"root={root}: demo videos can only be made on a disk; to read a copy of them behind "
            "a URL, set dataset=folder"
        )
    top = Path(root).absolute()
    videos = _finished(top) if videos is None else videos
    if generate:
        make_demo(top, videos, seed, report)
    rows = [demo_row(index) for index in range(videos)]
    items = (
        VideoItem(path, str(top / path), CLASSES.index(class_name))
        for path, class_name, its_split in rows
        if split in (None, its_split)
    )
    return Manifest("demo", str(top), split, CLASSES, sort_items(items))


def demo_row(index: int) -> tuple[str, str, str]:
    """Returns (path, class, split) of video `index`."""
    round_number, number = divmod(index, len(CLASSES))
    class_name = CLASSES[number]
    return f"{class_name}/{index:05d}.mp4", class_name, "val" if round_number % 5 == 1 else "train"


def _finished(top: Path) -> int:
    """Returns the number of videos in the folder, read from the file that is written last."""
    table = top / SPLIT_FILE
    if not ((top / _NOTE).exists() and table.exists()):
        return _USUAL
    return len(table.read_text().splitlines()) - 1


def make_demo(top: Path, videos: int, seed: int | None, report: Callable[[int, int], None]) -> None:
    """Writes the missing videos, and then split.csv, which lists all videos in the folder."""
    seed = _claim(top, seed)
    missing = [index for index in range(videos) if not (top / demo_row(index)[0]).exists()]
    for done, index in enumerate(missing, 1):
        path = top / demo_row(index)[0]
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f".{path.name}")
        encode(aside, render(index, seed))
        aside.replace(path)
        report(done, len(missing))
    _write_split_file(top)


def _claim(top: Path, seed: int | None) -> int:
    """Claims a new or empty folder for a demo set, and returns the set's seed.

    Raises UsageError for a folder of other files, or of a demo set of another seed than `seed`.
    """
    note = top / _NOTE
    top.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        if any(top.iterdir()):
            raise UsageError(f"{top} is neither empty nor a demo set; set root=… to another folder")
        note.write_text(json.dumps({"seed": seed or 0}))
    theirs = json.loads(note.read_text())["seed"]
    if seed not in (None, theirs):
        raise UsageError(f"{top} holds a demo set of another seed; set root=… to another folder")
    return theirs


def _write_split_file(top: Path) -> None:
    present = sorted(int(path.stem) for path in top.glob("*/[0-9]*.mp4"))
    aside = top / f".{SPLIT_FILE}"
    with aside.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "class", "split"), *map(demo_row, present)])
    aside.replace(top / SPLIT_FILE)


def encode(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Writes uint8 [H, W, 3] RGB frames as h264."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"crf": "20", "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True)
class _Object:
    colour: np.ndarray  # float32 [_TILE, _TILE, 3], 0–255, times the opacity
    opacity: np.ndarray  # float32 [_TILE, _TILE], 0–1
    centre: np.ndarray  # float64 [2] (x, y) at frame 0
    angle: float
    scale: float


def render(index: int, seed: int) -> Iterator[np.ndarray]:
    """Yields the frames of video `index`, RGB uint8 [H, W, 3]."""
    rng = np.random.default_rng([seed, index])
    motion = MOTIONS[demo_row(index)[1]]
    speed = rng.uniform(0.75, 1.25)
    drift = _camera(rng)
    background = _texture(rng, 3 * HEIGHT // 2, 3 * WIDTH // 2, contrast=0.5)
    objects = [_draw_object(rng, place) for place in range(int(rng.integers(3, 5)))]
    growth = max(motion(time, speed)[3] for time in (0, FRAMES))
    for time in range(FRAMES):
        yield _compose(background, objects, motion(time, speed), drift(time), growth)


def _camera(rng: np.random.Generator) -> Callable[[float], np.ndarray]:
    """Returns the drift (x, y) in pixels as a function of the frame: a glide and a slow sway."""
    glide = rng.uniform(-0.5, 0.5, 2)
    sway, rate, phase = rng.uniform(0, 5, 2), rng.uniform(0.03, 0.08, 2), rng.uniform(0, 6.28, 2)
    return lambda time: glide * time + sway * np.sin(rate * time + phase)


def _texture(rng: np.random.Generator, height: int, width: int, contrast: float) -> np.ndarray:
    """Stripes, fainter ones across them, and smooth coloured noise.

    Returns float32 [height, width, 3], 0–255.

    Neighbouring patches have the same stripes, so that the shape of a hidden patch can be known.
    Stripes of one direction alone would hide motion along them.
    """
    angle = rng.integers(4) * np.pi / 4 + rng.uniform(-0.1, 0.1)  # few directions: soon learnt
    image = _STRIPES * _stripes(rng, height, width, angle)
    image += _ACROSS * _stripes(rng, height, width, angle + np.pi / 2)
    for grain, weight in ((32, 0.8), (16, 0.8), (8, 0.3)):
        noise = rng.standard_normal((height // grain + 3, width // grain + 3, 3)).astype(np.float32)
        noise += 1.5 * noise.mean(axis=2, keepdims=True)  # some grey: luma must vary too
        large = cv2.resize(noise, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
        image += weight * large[:height, :width]
    mean = rng.uniform(90, 165, 3).astype(np.float32)
    return np.clip(mean + 45 * contrast * image, 0, 255).astype(np.float32)


def _stripes(rng: np.random.Generator, height: int, width: int, angle: float) -> np.ndarray:
    """A wave of random direction, period and tint: float32 [height, width, 3], −1 to 1."""
    period, phase = rng.uniform(8, 12), rng.uniform(0, 2 * np.pi)
    frequency = 2 * np.pi / period
    rows = np.arange(height)[:, None] * (frequency * np.sin(angle))
    columns = np.arange(width) * (frequency * np.cos(angle))
    wave = np.sin(rows + columns + phase)
    return (wave[..., None] * rng.uniform(0.6, 1, 3)).astype(np.float32)


def _draw_object(rng: np.random.Generator, place: int) -> _Object:
    corner = (_TILE - 1) / 2
    x, y = np.meshgrid(np.arange(_TILE) - corner, np.arange(_TILE) - corner)
    # a rounded polygon: the radius varies with the direction, the border is soft
    lobes, depth, phase = rng.integers(2, 6), rng.uniform(0.05, 0.22), rng.uniform(0, 6.28)
    radius = 38 * (1 + depth * np.cos(lobes * np.arctan2(y, x) + phase))
    opacity = np.clip((radius - np.hypot(x, y)) / 2 + 0.5, 0, 1).astype(np.float32)
    colour = _texture(rng, _TILE, _TILE, contrast=1.0) * opacity[..., None]
    # places spread over the picture, so that some object is always in view
    spread = np.array([(place * 0.38 + 0.2) % 1, (place * 0.62 + 0.3) % 1])
    centre = (spread + rng.uniform(-0.12, 0.12, 2)) * (WIDTH, HEIGHT)
    return _Object(colour, opacity, centre, rng.uniform(0, 6.28), rng.uniform(0.75, 1.1))


def _compose(
    background: np.ndarray, objects: list[_Object], pose: Pose, drift: np.ndarray, growth: float
) -> np.ndarray:
    """Returns one frame. `growth` is the largest log scale that objects of this motion reach."""
    shift = np.array([[1, 0, drift[0] - WIDTH / 4], [0, 1, drift[1] - HEIGHT / 4]], np.float32)
    image = cv2.warpAffine(
        background, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    for thing in objects:
        # what leaves on one side comes back on the other, out of sight in between
        margin = 0.5 * _TILE * thing.scale * math.exp(growth)
        extent = np.array([WIDTH, HEIGHT]) + 2 * margin
        centre = (thing.centre + drift + pose[:2] + margin) % extent - margin
        _paint(image, thing, centre, thing.angle + pose[2], thing.scale * math.exp(pose[3]))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _paint(
    image: np.ndarray, thing: _Object, centre: np.ndarray, angle: float, scale: float
) -> None:
    """Lays the object over the image, turned clockwise by `angle` and scaled, sub-pixel."""
    reach = 0.5 * _TILE * scale
    left, top = np.maximum(np.floor(centre - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(centre + reach), (WIDTH, HEIGHT)).astype(int)
    if left >= right or top >= bottom:
        return
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = centre - (left, top) - linear @ np.full(2, (_TILE - 1) / 2)
    matrix = np.column_stack([linear, offset]).astype(np.float32)
    size = (right - left, bottom - top)
    part = image[top:bottom, left:right]
    covered = cv2.merge([cv2.warpAffine(thing.opacity, matrix, size)] * 3)
    part -= cv2.multiply(part, covered)
    part += cv2.warpAffine(thing.colour, matrix, size)
