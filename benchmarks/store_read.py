"""Time to read a random clip of 8 tubelets from a store, with a warm disk cache.

    python benchmarks/store_read.py [STORE] [--clips 400]

Prints the median and the 90th percentile in milliseconds on one thread, and the same for
zarr-python with the same rows of the same arrays. Without STORE it writes one with invented
targets, which are as large as real ones. The results are in docs/measurements/store.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import cv2
import numpy as np
import zarr

from mme_core import targets
from mme_core.extract.results import TubeletTargets
from mme_core.spec import TargetSpec
from mme_core.store.layout import shard_name
from mme_core.store.target_store import TargetStore, open_or_create_store
from mme_core.store.writer import ShardWriter

TUBELETS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", nargs="?", help="path or fsspec URL")
    parser.add_argument("--clips", type=int, default=400, help="clips to read; default 400")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.store or make_store(f"{folder}/store")
        begun = time.perf_counter()
        store = TargetStore(url)
        print(f"opened {len(store.videos)} videos in {1e3 * (time.perf_counter() - begun):.1f} ms")
        compare(store, arguments.clips)


def compare(store: TargetStore, clips: int) -> None:
    rng = np.random.default_rng(0)
    span = (TUBELETS - 1) * store.spec.clip_step + 1
    spare = np.maximum(store.videos["count"] - span, 0)
    videos = rng.integers(0, len(spare), clips)
    starts = rng.integers(0, spare[videos] + 1)
    groups = {}

    def by_zarr(video: int, start: int) -> None:
        row = store.videos[video]
        if row["shard"] not in groups:
            groups[row["shard"]] = zarr.open_group(
                f"{store.url}/{shard_name(row['shard'])}", mode="r"
            )
        group, low = groups[row["shard"]], row["first"] + start
        for name in ("position", "shape", "moments", "valid"):
            group[name][low : low + span]

    coded = [store.read_coded(int(v), int(s), TUBELETS) for v, s in zip(videos[:8], starts[:8])]
    works: dict[str, Callable[[int, int], object]] = {
        "targets, coded": lambda v, s: store.read_coded(v, s, TUBELETS, frames=False),
        "targets and frames, coded": lambda v, s: store.read_coded(v, s, TUBELETS),
        "targets by zarr-python": by_zarr,
        "de-quantised, frames decoded": lambda v, s: store.read(v, s, TUBELETS),
        "(decoding the 16 frames alone)": lambda v, s: coded[v % len(coded)].decode_frames(),
    }
    if store.spec.frames == "none":
        del works["(decoding the 16 frames alone)"]
    print(f"{'ms a clip':34}{'median':>8}{'90 %':>8}")
    for name, work in works.items():
        times = []
        for video, start in zip(videos.tolist(), starts.tolist()):
            begun = time.perf_counter()
            work(video, start)
            times.append(1e3 * (time.perf_counter() - begun))
        print(f"{name:34}{np.median(times):8.2f}{np.percentile(times, 90):8.2f}")


def make_store(url: str) -> str:
    """Writes two shards of 12 videos of 40 tubelets, 16 × 20 patches, that pack like real ones."""
    spec = TargetSpec()
    open_or_create_store(url, spec, "made up", None, [])
    for shard in range(2):
        with ShardWriter(url, shard, spec) as writer:
            for video in range(12):
                writer.begin_video()
                for number in range(40):
                    writer.append(tubelet(number, spec))
                about = {"id": f"{shard}/{video}", "path": "", "label": -1, "fps": 25.0}
                size = {"height": 256, "width": 340, "frames": 40 * spec.hop, "warnings": []}
                writer.end_video(about | size)
    return url


def tubelet(number: int, spec: TargetSpec) -> TubeletTargets:
    rng = np.random.default_rng(number)
    lead = (16, 20, spec.points, spec.length)
    displacement = rng.normal(0, 0.3, (*lead, 2)).astype(np.float32)
    hog = rng.gamma(0.3, 1, (*lead[:3], 1, spec.hog_bins)) + rng.gamma(0.5, 0.1, (*lead, 9))
    position, shape, moments = targets.encode(displacement, hog.astype(np.float32), spec)
    images = [cv2.resize(rng.integers(0, 255, (40, 50, 3), np.uint8), (320, 256)) for _ in range(2)]
    return TubeletTargets(
        position=position,
        shape=shape,
        moments=moments,
        valid=np.full((16, 20), 15, np.uint8),
        pts=np.array([number, number + 1]),
        frames=tuple(cv2.imencode(".jpg", image)[1].tobytes() for image in images),
        homography=None,
        first=spec.hop * number,
    )


if __name__ == "__main__":
    main()
