"""A tiny labelled set of video files: a square that moves left, or right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from mme_core.datasets import load_manifest
from train.data.sources import FileSource, Sources

HEIGHT, WIDTH = 32, 48


def write_square(
    path: Path, speed: float, seed: int, frames: int = 12, tint: tuple[float, ...] = (1, 1, 1)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    top, left, shade = rng.integers(4, 16), rng.integers(8, 28), rng.integers(150, 250)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            columns = (left + round(speed * number) + np.arange(12)) % WIDTH
            image[top : top + 12, columns] = shade * np.array(tint)
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_set(root: Path, train: int = 6, val: int = 3, coloured: bool = False) -> Path:
    """root/{train,val}/{left,right}/N.mp4; the numbers are videos of each class.

    coloured: left is red and right is blue, so that a single pixel tells them apart.
    """
    tints = {"left": (1, 0.2, 0.2), "right": (0.2, 0.2, 1)} if coloured else {}
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        for name, speed in (("left", -2.0), ("right", 2.0)):
            for number in range(count):
                path = root / split / name / f"{number}.mp4"
                write_square(path, speed, first + number, tint=tints.get(name, (1, 1, 1)))
    return root


def source_of(root: Path, split: str = "val") -> FileSource:
    """The videos of one split of such a set."""
    manifest = load_manifest("folder", str(root), split)
    return FileSource(manifest.items, manifest.class_names)


def with_unfit_stride(open_sources: Callable[..., Sources]) -> Callable[..., Sources]:
    """`open_sources`, whose held-out videos are as of a store of stride 3."""

    def opened(*arguments: Any) -> Sources:
        sources = open_sources(*arguments)
        sources.val.step = 3
        return sources

    return opened
