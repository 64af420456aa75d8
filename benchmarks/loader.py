"""Clips a second that the loader hands over, from a store's frames and from video files.

    python benchmarks/loader.py [--clips 200] [--crops 1]
    OPENBLAS_NUM_THREADS=1 python benchmarks/loader.py --zoom 10 16    # as in a worker
    python benchmarks/loader.py --store STORE [--root VIDEOS] [--memory 20000]

Without --store it generates videos and their store: 340×256, H.264, a key frame every 250 frames,
textures that drift and turn, with the detail and the noise of real videos. Clips are of 16 × 224².
In turn it measures, on one core:

    handed over    coded batches, written into memory that is used again, as a worker does
    whole samples  finished samples and their collation
    frames         16 whole frames of a video, as fine-tuning, probes and features read them
    decoding       the frames alone, the targets' chunks alone, and the video files alone

The generated videos make a store for each name of `--frames`, which are measured in turn.

It counts processor time, which other work on the machine does not lengthen much; the fastest of
`--repeats` rounds counts. One more round gives the parts of a clip. --memory N takes N clips from a
worker and gives its memory on the way. The results are in docs/measurements/loader.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import av
import cv2
import numpy as np
import psutil
import torch
from one_video import store_video

from mme_core.clips import dataset as clips_dataset
from mme_core.clips import fetching
from mme_core.clips.dataset import ClipDataset
from mme_core.clips.fetching import target_names
from mme_core.frame_codec import decode_frame
from mme_core.spec import TUBELET, TargetSpec
from mme_core.store.pieces import StoredWindow
from mme_core.store.target_store import TargetStore, open_or_create_store
from mme_core.store.writer import ShardWriter
from train.data.loader import make_clip_loader
from train.data.sampler import ClipSampler
from train.data.sources import StoreSource

GOP = 250
GRAIN = 5  # noise in grey levels; gives files and frames of Kinetics' size
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", help="store to measure; default: a generated store")
    parser.add_argument("--root", help="folder of the store's videos")
    parser.add_argument("--clips", type=int, default=200, help="clips in a round; default 200")
    parser.add_argument("--repeats", type=int, default=3, help="number of rounds; default 3")
    parser.add_argument("--memory", type=int, metavar="N", help="clips to take from a worker")
    parser.add_argument("--crops", type=int, default=1, help="crops of each window; default 1")
    parser.add_argument("--zoom", type=int, nargs=2, default=(), metavar=("MIN", "MAX"))
    parser.add_argument("--quality", type=int, default=90, help="of JPEG frames; default 90")
    parser.add_argument(
        "--frames",
        nargs="+",
        default=["jpeg"],
        choices=("jpeg", "lz4"),
        help="how the generated stores code frames; default jpeg",
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        specs = [TargetSpec(frames=name, jpeg_quality=options.quality) for name in options.frames]
        stores = [options.store] if options.store else generate(Path(folder), 4, 300, specs)
        measure([TargetStore(store) for store in stores], options)


def measure(stores: Sequence[TargetStore], options: argparse.Namespace) -> None:
    augmentation = {"crops": options.crops, "zoom": options.zoom}
    datasets = {store.spec.frames: ClipDataset(store, **augmentation) for store in stores}
    first = stores[0].videos[0]
    sizes = [f"{name} {frame_bytes(data) / 1e3:.1f} kB" for name, data in datasets.items()]
    print(
        f"{len(stores[0].videos)} videos of {first['width']}×{first['height']}, canvas "
        f"{first['wp'] * 16}×{first['hp'] * 16}, a frame: {', '.join(sizes)}; "
        f"crops {options.crops}, zoom {list(options.zoom) or 'off'}"
    )
    if options.memory:
        for data in datasets.values():
            watch_memory(data, options.memory)
        return
    few = max(options.clips // 4, 1)  # fewer clips, because reading files is slow
    measured: dict[str, Callable[[], float]] = {}
    for name, data in datasets.items():
        measured |= {
            f"{name}: handed over": partial(hand_over, data, options.clips),
            f"{name}: whole samples": partial(load, data, options.clips),
            f"{name}: decoding the frames": partial(decode_stored, data, options.clips),
            f"{name}: decoding the targets' chunks": partial(decode_chunks, data, options.clips),
        }
        if options.crops == 1:  # a view is no crop of a window
            measured[f"{name}: frames of a view"] = partial(read_views, data, options.clips)
    if options.root or not options.store:
        filed = ClipDataset(stores[0], **augmentation, source="video", root=options.root)
        measured["handed over, from video files"] = partial(hand_over, filed, few)
        measured["decoding the video files"] = partial(decode_files, filed, few)
    fastest = dict.fromkeys(measured, float("inf"))
    for _ in range(options.repeats):
        for name, function in measured.items():
            fastest[name] = min(fastest[name], function())
    base = next(iter(fastest.values()))
    for name, seconds in fastest.items():
        rate = options.crops / seconds
        print(f"{name:<36}{rate:8.1f} clips/s   {base / seconds:6.2f} × the first")
    for name, data in datasets.items():
        print(f"{name}: a window's parts, ms: {breakdown(data, few)}")


def keys(dataset: ClipDataset, clips: int) -> list[tuple[int, int]]:
    return [divmod(number, len(dataset)) for number in range(-(-clips // dataset.crops))]


def hand_over(dataset: ClipDataset, clips: int) -> float:
    """Seconds of CPU time a window."""
    form, count = dataset.form, BATCH * dataset.crops
    memory = form.carve(torch.zeros(form.size(count), dtype=torch.uint8), count)
    arrays = {name: value.numpy() for name, value in memory.items()}
    wanted = keys(dataset, clips)
    for warm in (True, False):
        started = time.process_time()
        for number, key in enumerate(wanted[: 2 * BATCH] if warm else wanted):
            dataset.fetch_into(arrays, number % BATCH * dataset.crops, key)
    return (time.process_time() - started) / len(wanted)


def load(dataset: ClipDataset, clips: int) -> float:
    """Seconds of CPU time a window."""
    wanted = keys(dataset, clips)
    started = time.process_time()
    for first in range(0, len(wanted), BATCH):
        clips_dataset.collate([dataset[key] for key in wanted[first : first + BATCH]])
    return (time.process_time() - started) / len(wanted)


def read_views(dataset: ClipDataset, clips: int) -> float:
    """Seconds of CPU time to read a window's frames as fine-tuning, probes and features do."""
    source, wanted = StoreSource(dataset.store), keys(dataset, clips)
    frames = np.arange(TUBELET * dataset.tubelets)
    started = time.process_time()
    for _, video in wanted:
        source.read(video, lambda count: frames % count)
    return (time.process_time() - started) / len(wanted)


def windows(dataset: ClipDataset, clips: int) -> Iterator[tuple[StoredWindow, int]]:
    for key in keys(dataset, clips):
        draw = dataset.draw(key)
        yield dataset.store.open_window(draw.video, draw.start, dataset.tubelets), draw.start


def decode_stored(dataset: ClipDataset, clips: int) -> float:
    """Seconds of CPU time to decode a window's frames into one image."""
    total, opened = 0.0, list(windows(dataset, clips))
    for window, _ in opened:
        image = np.empty((window.row["hp"] * 16, window.row["wp"] * 16, 3), np.uint8)
        frames = window.frames()
        image.fill(0)
        started = time.process_time()
        for coded in frames:
            decode_frame(coded, image)
        total += time.process_time() - started
    return total / len(opened)


def decode_chunks(dataset: ClipDataset, clips: int) -> float:
    """Seconds of CPU time to read and decompress a window's targets, nothing else."""
    total, opened = 0.0, list(windows(dataset, clips))
    names = [name for name in target_names(()) if name in dataset.form.fields()]
    for window, _ in opened:
        started = time.process_time()
        for name in names:
            for _ in window.parts(name):
                pass
        total += time.process_time() - started
    return total / len(opened)


def decode_files(dataset: ClipDataset, clips: int) -> float:
    """Seconds of CPU time to decode a window's frames from its video file, nothing else."""
    total, opened = 0.0, list(windows(dataset, clips))
    for window, start in opened:
        started = time.process_time()
        dataset._from_file(window, start)
        total += time.process_time() - started
    return total / len(opened)


def watch_memory(dataset: ClipDataset, clips: int) -> None:
    """Prints the memory of a worker, and of this process, while they go through so many clips."""
    sampler = ClipSampler(len(dataset), min(len(dataset), BATCH))
    batches = iter(make_clip_loader(dataset, sampler, workers=1))
    count = clips // (sampler.batch_size * dataset.crops)
    for number in range(count + 1):
        next(batches)
        if number % max(count // 8, 1) == 0:
            (worker,) = multiprocessing.active_children()
            theirs, mine = (psutil.Process(pid).memory_full_info() for pid in (worker.pid, None))
            done = number * sampler.batch_size * dataset.crops
            print(
                f"{done:8d} clips: worker {theirs.uss / 1e6:.0f} MB of its own and "
                f"{theirs.shared / 1e6:.0f} MB shared; this process {mine.uss / 1e6:.0f} MB"
            )


def frame_bytes(dataset: ClipDataset) -> float:
    return float(np.mean([len(coded) for coded in dataset.store.read_coded(0, 0, 8).frames]))


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
        (fetching, "decode_frame", "decode frames", fetching.decode_frame),
        (fetching, "write_crops", "copy crops", fetching.write_crops),
        (fetching, "write_targets", "targets", fetching.write_targets),
        (StoredWindow, "frames_at", "read frames", StoredWindow.frames_at),
        (ClipDataset, "draw", "draw", ClipDataset.draw),
    )
    with ExitStack() as stack:
        for owner, name, label, function in parts:
            stack.enter_context(mock.patch.object(owner, name, clocked(label, function)))
        total = hand_over(dataset, clips) * 1e3
    windows = len(keys(dataset, clips)) + min(2 * BATCH, len(keys(dataset, clips)))
    shares = {name: seconds / windows * 1e3 for name, seconds in spent.items()}
    shares["rest"] = total - sum(shares.values())
    return ", ".join(f"{name} {value:.2f}" for name, value in shares.items())


def generate(
    folder: Path, videos: int, frames: int, specs: Sequence[TargetSpec] = (TargetSpec(),)
) -> list[Path]:
    """Generates videos under `folder` and a store of them for each of `specs`; returns the stores.

    The flow is dis-ultrafast, because nobody looks at the targets.
    """
    paths = [folder / f"{number}.mp4" for number in range(videos)]
    for number, path in enumerate(paths):
        encode(path, drifting(frames, seed=number))
    stores = []
    for number, wanted in enumerate(specs):
        spec, store = dataclasses.replace(wanted, flow="dis-ultrafast"), folder / f"store{number}"
        open_or_create_store(store, spec, "generated", None, [])
        with ShardWriter(store, 0, spec) as writer:
            for path in paths:
                store_video(writer, path, spec)
        stores.append(store)
    return stores


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
