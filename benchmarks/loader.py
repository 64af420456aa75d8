"""Clips a second that the loader delivers, from a store's frames and from video files.

    python benchmarks/loader.py [--clips 200] [--workers 0] [--crops 1]
    OPENBLAS_NUM_THREADS=1 python benchmarks/loader.py --zoom 10 16    # as in a worker
    python benchmarks/loader.py --store STORE [--root VIDEOS]

Without --store it generates videos and their store: 340×256, H.264, a key frame every 250 frames,
textures that drift and turn, with the detail and the noise of real videos. It loads clips of 16 ×
224² from the store and from the files in turn. Each round uses the same random windows, and the
fastest of `--repeats` rounds counts. Samples from the store (frames and targets) are compared
with the decoding of the files' frames alone.

It uses one core unless --workers says otherwise. Without workers it measures processor time,
which other work on the machine does not lengthen, and prints wall-clock time beside it. One more
round gives the breakdown. The results are in docs/measurements/loader.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import av
import cv2
import numpy as np
import torch

from mme_core.clips import dataset as clips_dataset
from mme_core.clips import geometry
from mme_core.clips.dataset import ClipDataset
from mme_core.extract import stream_tubelets
from mme_core.masking import make_mask
from mme_core.spec import TargetSpec
from mme_core.store.target_store import TargetStore, open_or_create_store
from mme_core.store.window import decode_jpegs
from mme_core.store.writer import ShardWriter
from train.data.loader import make_loader
from train.data.sampler import ClipSampler

GOAL = 70  # clips/s on one core
GOAL_RATIO = 8  # over the decoding of a GOP-250 video
GOP = 250
GRAIN = 5  # noise in grey levels; gives files and frames of Kinetics' size
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", help="store to measure; default: a generated store")
    parser.add_argument("--root", help="folder of the store's videos")
    parser.add_argument("--clips", type=int, default=200, help="clips in a round; default 200")
    parser.add_argument("--repeats", type=int, default=3, help="number of rounds; default 3")
    parser.add_argument("--workers", type=int, default=0, help="loader processes; default: none")
    parser.add_argument("--crops", type=int, default=1, help="crops of each window; default 1")
    parser.add_argument("--zoom", type=int, nargs=2, default=(), metavar=("MIN", "MAX"))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if not options.workers:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or generate(Path(folder), videos=4, frames=300)
        measure(TargetStore(store), options)


def measure(store: TargetStore, options: argparse.Namespace) -> None:
    augmentation = {"crops": options.crops, "zoom": options.zoom}
    stored = ClipDataset(store, **augmentation)
    filed = None
    if options.root or not options.store:
        filed = ClipDataset(store, **augmentation, source="video", root=options.root)
    rounds = defaultdict(list)
    few = max(options.clips // 4, 1)  # fewer clips, because reading files is slow
    for _ in range(options.repeats):
        rounds["store"].append(load(stored, options.clips, options.workers))
        if filed:
            rounds["files"].append(load(filed, few, options.workers))
            rounds["decode"].append(decode(filed, few))
    cpu, wall = (
        {name: options.crops / min(times[clock] for times in all_) for name, all_ in rounds.items()}
        for clock in (0, 1)
    )
    rate = wall if options.workers else cpu
    first = store.videos[0]
    print(
        f"{len(store.videos)} videos of {first['width']}×{first['height']}, canvas "
        f"{first['wp'] * 16}×{first['hp'] * 16}, {jpeg_bytes(store) / 1e3:.1f} kB a frame; "
        f"workers {options.workers}, crops {options.crops}, zoom {list(options.zoom) or 'off'}"
    )
    row = "{:<38}{:8.1f} clips/s ({:.1f} on the wall)"
    print(row.format("samples from the store", rate["store"], wall["store"]))
    if filed:
        print(row.format("samples from the files", rate["files"], wall["files"]))
        print(row.format("decoding the files, one process", cpu["decode"], wall["decode"]))
    processes = max(options.workers, 1)
    print(f"store, a process, over {GOAL} clips/s      {rate['store'] / processes / GOAL:8.2f} ×")
    if filed:
        ratio = rate["store"] / processes / cpu["decode"]
        print(f"store, a process, over decoding       {ratio:8.2f} × (goal {GOAL_RATIO} ×)")
    print(f"a sample's parts, ms: {breakdown(stored, few)}")


def clock() -> np.ndarray:
    """This process's CPU time and the wall-clock time, seconds."""
    return np.array([time.process_time(), time.perf_counter()])


def load(dataset: ClipDataset, clips: int, workers: int) -> np.ndarray:
    """Seconds (CPU, wall) a sample, all its crops, in batches; the first batches warm up."""
    sampler = ClipSampler(len(dataset), min(len(dataset), BATCH))
    batches = iter(make_loader(dataset, sampler, clips_dataset.collate, workers))
    for _ in range(1 + 4 * workers):
        next(batches)
    count = -(-clips // sampler.batch_size)
    started = clock()
    for _ in islice(batches, count):
        pass
    return (clock() - started) / (count * sampler.batch_size)


def decode(dataset: ClipDataset, clips: int) -> np.ndarray:
    """Seconds (CPU, wall) to decode one window's frames from its video file, nothing else."""
    store, rng = dataset.store, np.random.default_rng(0)
    total = np.zeros(2)
    for number in range(clips):
        video = number % len(dataset)
        row = store.videos[video]
        starts = max(row["count"] - (dataset.tubelets - 1) * store.spec.clip_step, 1)
        window = store.read_coded(video, int(rng.integers(starts)), dataset.tubelets, frames=False)
        started = clock()
        dataset._from_file(row, window)
        total += clock() - started
    return total / clips


def jpeg_bytes(store: TargetStore) -> float:
    return float(np.mean([len(jpeg) for jpeg in store.read_coded(0, 0, 8).frames]))


def breakdown(dataset: ClipDataset, clips: int) -> str:
    """Milliseconds of CPU time of each part of a sample, including a little for measuring."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.process_time() - started

        return call

    parts = (
        (TargetStore, "read_coded", "read", TargetStore.read_coded),
        (clips_dataset, "decode_jpegs", "decode", decode_jpegs),
        (geometry, "crop_image", "crop frames", geometry.crop_image),
        (clips_dataset, "_cropped", "crop targets", clips_dataset._cropped),
        (ClipDataset, "_zoomed", "zoom targets", ClipDataset._zoomed),
        (clips_dataset, "make_mask", "mask", make_mask),
    )
    with ExitStack() as stack:
        for owner, name, label, function in parts:
            stack.enter_context(mock.patch.object(owner, name, clocked(label, function)))
        started = time.process_time()
        samples = [dataset[number, number % len(dataset)] for number in range(clips)]
        total = time.process_time() - started
        spent["rest"] = total - sum(spent.values())
    started = time.process_time()
    for first in range(0, clips, BATCH):
        clips_dataset.collate(samples[first : first + BATCH])
    spent["collate"] = time.process_time() - started
    return ", ".join(f"{name} {seconds / clips * 1e3:.2f}" for name, seconds in spent.items())


def generate(folder: Path, videos: int, frames: int) -> Path:
    """Generates videos under folder/videos and their store; returns the store's path."""
    spec = TargetSpec(flow="dis-ultrafast")
    open_or_create_store(folder / "store", spec, "generated", None, [])
    with ShardWriter(folder / "store", 0, spec) as writer:
        for number in range(videos):
            path = folder / f"{number}.mp4"
            encode(path, drifting(frames, seed=number))
            writer.begin_video()
            stream = stream_tubelets(path, spec)
            for tubelet in stream:
                writer.append(tubelet)
            about = stream.summary
            writer.end_video(
                {
                    "id": path.name,
                    "path": str(path),
                    "label": -1,
                    "fps": about.fps,
                    "height": about.height,
                    "width": about.width,
                    "frames": about.frames,
                    "warnings": [],
                }
            )
    return folder / "store"


def drifting(frames: int, seed: int, height: int = 256, width: int = 340) -> Iterator[np.ndarray]:
    """RGB frames of a texture with a 1/f spectrum that drifts behind one that turns."""
    rng = np.random.default_rng(seed)
    back, front = natural(rng, 512), natural(rng, 512)
    mask = np.zeros((height, width, 1), np.float32)
    cv2.circle(mask, (width // 2, height // 2), height // 3, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    velocity = rng.uniform(-1.5, 1.5, 2)
    for number in range(frames):
        shift = np.float32([[1, 0, -80 + velocity[0] * number], [0, 1, -80 + velocity[1] * number]])
        turn = cv2.getRotationMatrix2D((256, 256), 1.2 * number, 1.0)
        turn[:, 2] += (width / 2 - 256, height / 2 - 256)
        layers = [
            cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_WRAP)
            for image, matrix in ((back, shift), (front, turn))
        ]
        image = layers[0] * (1 - mask) + layers[1] * mask
        image += rng.normal(0, GRAIN, (height, width, 1))
        yield np.clip(image, 0, 255).astype(np.uint8)


def natural(rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 [side, side, 3] with the power spectrum of natural images."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    noise = rng.normal(size=(3, side, side))
    # 1/f, with less of the finest grain, which video compression removes
    luma = np.fft.irfft2(np.fft.rfft2(noise[0]) / frequency**1.4)
    chroma = np.fft.irfft2(np.fft.rfft2(noise[1:]) / frequency**1.4)
    colours = [luma + 0.4 * chroma[0], luma, luma + 0.4 * chroma[1]]
    image = np.stack([colour / colour.std() for colour in colours], -1)
    return np.clip(128 + 50 * image, 0, 255).astype(np.float32)


def encode(path: Path, frames: Iterator[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        stream.options = {"g": str(GOP), "sc_threshold": "0", "crf": "23"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
