"""What augmentation costs a loader's worker, and how far the device's differs from timm's.

    python benchmarks/augment.py [--clips 40] [--video FILE]
    python benchmarks/augment.py --device cuda

For training clips of 16 × 224² with the recipe's RandAugment it prints:

    worker       processor time that a clip takes of a loader's worker, with augment.place=workers
                 and =device; the frames come from a generated store
    device       time that a clip takes of the device, and of the process that drives it; on CUDA
                 it also checks that this process never waits for the device
    differences  of each operation, device − Pillow, in levels of 0–255, over several draws

The two places are measured in turn, and the fastest of `--repeats` rounds counts. Differences are
those of generated frames, or of frames of --video. The results are in
docs/measurements/downstream.md.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from loader import drifting, generate

from mme_core.io.video import read_frames
from mme_core.store.target_store import TargetStore
from train.data.augment import Drawn, augment_clip, draw_operations
from train.data.device_augment import augment, augment_batch
from train.data.labelled import TrainClips, collate_train
from train.data.sources import StoreSource
from train.recipes.classification import AugmentConfig

FRAMES, SIZE = 16, 224
# With the recipe's magnitudes, enough draws to meet every operation several times.
EACH = ("rand-m7-n120-p1-mstd0.5-inc1", "rand-m7-n16-p1-mstd0.5-inc1-t3a")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=40, help="clips in a round; default 40")
    parser.add_argument("--repeats", type=int, default=3, help="number of rounds; default 3")
    parser.add_argument("--video", type=Path, help="video for the differences; default: generated")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (store,) = generate(Path(folder), videos=2, frames=200)
        source = StoreSource(TargetStore(store))
        measure_worker(source, options.clips, options.repeats)
        measure_device(source, torch.device(options.device), options.clips, options.repeats)
    print_differences(options.video)


def clips_of(source: StoreSource, *, on_device: bool) -> TrainClips:
    return TrainClips(
        source,
        frames=FRAMES,
        size=SIZE,
        sampling="dense",
        stride=1,
        crops=2,
        still=False,
        augment=AugmentConfig(scale=[0.25, 1.0]),
        seed=0,
        budget=0,
        on_device=on_device,
    )


def measure_worker(source: StoreSource, clips: int, repeats: int) -> None:
    cases = {
        "place=workers": clips_of(source, on_device=False),
        "place=device": clips_of(source, on_device=True),
    }
    seconds = dict.fromkeys(cases, float("inf"))
    for _ in range(repeats):
        for name, dataset in cases.items():
            started = time.process_time()
            for key in range(clips // dataset.crops):
                collate_train([dataset[(key, key % len(dataset))]])
            spent = (time.process_time() - started) / (clips // dataset.crops * dataset.crops)
            seconds[name] = min(seconds[name], spent)
    print("worker: processor time of a clip, two crops a video")
    for name, value in seconds.items():
        print(f"  {name:<16}{1e3 * value:8.1f} ms {1 / value:8.1f} clips/s")


def measure_device(source: StoreSource, device: torch.device, clips: int, repeats: int) -> None:
    dataset = clips_of(source, on_device=True)
    batch = collate_train([dataset[(key, key % len(dataset))] for key in range(clips // 2)])
    frames, drawn = batch["frames"].to(device), batch["drawn"]
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    host, whole = float("inf"), float("inf")
    for _ in range(repeats + 1):  # the first round warms up
        finish(device)
        started = clock()
        with never_waiting(device):
            augment_batch(frames, drawn)
        launched = clock()
        finish(device)
        host = min(host, (launched - started) / len(drawn))
        whole = min(whole, (clock() - started) / len(drawn))
    print(f"device {device}: {1e3 * whole:.2f} ms a clip, {1e3 * host:.2f} ms to start its work")


@contextlib.contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """Raises RuntimeError where the host waits for CUDA's work."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    yield
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def print_differences(video: Path | None) -> None:
    clip = frames_of(video)
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    operations = [one for description in EACH for one in draw_operations(description, seed=0)]
    for operation in operations:
        drawn = Drawn((operation,), flip=False)
        ours = augment(torch.from_numpy(clip), drawn).numpy()
        found[operation.name].append(ours.astype(np.int16) - augment_clip(clip, drawn))
    print("differences: largest, 99th percentile, mean, mean with its sign")
    for name in sorted(found):
        signed = np.stack(found[name])
        size = np.abs(signed)
        print(
            f"  {name:<22}{size.max():4d}{np.percentile(size, 99):6.0f}{size.mean():8.3f}"
            f"{signed.mean():+8.3f}   {len(signed)} draws"
        )


def frames_of(video: Path | None) -> np.ndarray:
    """Three frames, uint8 [3, SIZE, SIZE, 3]."""
    if video is None:
        frames = np.stack(list(islice(drifting(60, seed=3), 0, 60, 20)))
    else:
        frames = read_frames(str(video), np.array([0, 10, 20]))
    height, width = frames.shape[1:3]
    side = min(height, width)
    return np.stack([cv2.resize(frame[:side, :side], (SIZE, SIZE)) for frame in frames])


if __name__ == "__main__":
    main()
