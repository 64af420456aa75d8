"""Does pre-training learn? Runs all commands, from generated video files to the held-out loss.

    python benchmarks/learning.py [--work runs/learning] [--videos 300] [--steps 800]

Each file shows one texture that moves, turns and grows at changing speeds. Its grain has a random
direction. One file in five is held out. Prints the loss on the held-out files, and the loss of the
best constant vector on the same patches. A model that ignores its input cannot beat that constant.
The results are in docs/measurements/learning.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mme_core.datasets.demo import HEIGHT, WIDTH, encode

FRAMES = 48
MARGIN = 48  # pixels of texture around the picture, so that it never runs out
SPEC = ["spec.stride=2", "spec.length=4", "spec.short_side=64", "spec.long_side=80"]
RECIPE = [
    "model.size=tiny",
    "model.depth=4",
    "model.frames=8",
    "model.image_size=64",
    "decoder.width=96",
    "decoder.heads=3",
    "target.length=4",
    "norm.floor=0.1",
    "data.batch_size=32",
    "data.workers=1",
    "optim.lr=8e-3",
    "optim.warmup_epochs=10",
    "optim.clip=1.0",
    "log.every=20",
    "checkpoint.every=200",
    "eval.every=25",
    "eval.clips=60",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/learning"), help="folder for everything"
    )
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--steps", type=int, default=800)
    options = parser.parse_args()
    work: Path = options.work
    started = time.monotonic()
    for number in range(options.videos):
        split = "val" if number % 5 == 0 else "train"
        path = work / "videos" / split / "moving" / f"{number:04d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, render(np.random.default_rng(number)))
    for split in ("train", "val"):
        source = ["--dataset", "folder", "--root", str(work / "videos"), "--split", split]
        mme("flows", *source, "--store", str(work / split), *SPEC)
    stores = [f"store={work / 'train'}", f"val_store={work / 'val'}", f"out={work / 'run'}"]
    mme("pretrain", *stores, f"optim.steps={options.steps}", *RECIPE)
    report(work / "run" / "metrics.jsonl")
    print(f"{(time.monotonic() - started) / 60:.0f} minutes in all")


def mme(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "mme_core", *words], check=True)


def render(rng: np.random.Generator, glide: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yields the frames of a video, RGB uint8 [HEIGHT, WIDTH, 3]. glide: pixels a frame."""
    texture = draw_texture(rng)
    centre = np.array([texture.shape[1], texture.shape[0]]) / 2
    drawn, swing = rng.uniform(-1.2, 1.2, 2), rng.uniform(0, 6, 2)
    glide = drawn if glide is None else glide
    turn, growth = rng.uniform(-0.012, 0.012), rng.uniform(-0.006, 0.006)
    rate, phase = rng.uniform(0.1, 0.3, 2), rng.uniform(0, 6.28, 2)
    for frame in range(FRAMES):
        t = frame - FRAMES / 2
        matrix = cv2.getRotationMatrix2D(centre, np.degrees(turn * t), np.exp(growth * t))
        place = glide * t + swing * np.sin(rate * t + phase)
        matrix[:, 2] += place - centre + (WIDTH / 2, HEIGHT / 2)
        yield cv2.warpAffine(
            texture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )


def draw_texture(rng: np.random.Generator) -> np.ndarray:
    """Draws noise, uint8 [H, W, 3], whose grain is three times as long as wide."""
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    side = 2 * max(height, width)
    noise = rng.standard_normal((side, side, 3)).astype(np.float32)
    grain = rng.uniform(2.5, 4)
    noise = cv2.GaussianBlur(noise, None, sigmaX=3 * grain, sigmaY=grain)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1)
    turn[:, 2] += np.array([width, height]) / 2 - side / 2
    image = cv2.warpAffine(noise, turn, (width, height))
    image += image.mean(axis=2, keepdims=True)  # add grey, so that luma varies too
    return np.clip(128 + 50 * image / image.std(), 0, 255).astype(np.uint8)


def report(metrics: Path) -> None:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    heads = "".join(f"  {name:>8}  constant   below " for name in ("position", "shape"))
    print(f"  step{heads}")
    for row in rows:
        if "val_position" not in row:
            continue
        line = f"{row['step']:>6}"
        for name in ("position", "shape"):
            loss, constant = row[f"val_{name}"], row[f"constant_{name}"]
            line += f"  {loss:8.4f}  {constant:8.4f}  {1 - loss / constant:6.1%} "
        print(line)


if __name__ == "__main__":
    main()
