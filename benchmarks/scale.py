"""Cost of large data sets: time of stage 1, size of the store, reading, and the driver.

    python benchmarks/scale.py [VIDEO ...]               # tables from the costs of these files
    python benchmarks/scale.py --driver 1000000 [--ray]  # a run whose tasks do nothing

The first command extracts the files on one core, and multiplies the mean costs of a raw frame and
of a tubelet. It measures processor time, which other work on the machine hardly changes.
Without files it takes some of the demo set. The second runs the driver of `mme flows` on invented
videos. It measures the driver's own work and memory and, with --ray, how many tasks a second come
back. The results are in docs/measurements/scale.md.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import pickle
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from one_video import store_video

from mme_core.datasets import Manifest, VideoItem, load_manifest
from mme_core.io.place import open_place
from mme_core.spec import TUBELET, TargetSpec
from mme_core.store.layout import CHUNK_TUBELETS, FORMAT, FRAME_CHUNK, layouts, shard_name
from mme_core.store.seal import blank, seal
from mme_core.store.writer import ShardWriter
from preprocess import flows, pool
from preprocess.isolate import ShardResult
from preprocess.jobs import OK, Outcome, ShardJob
from preprocess.plan import MOST_PER_SHARD

CLIP = 8  # tubelets
GPUS = 8  # of a node of stage 2
CLIPS_PER_GPU = 1000  # a second: the goal for ViT-B on an H200
CORES = 1000


@dataclass(frozen=True)
class DataSet:
    """A data set: `videos` videos of `seconds` at `fps`, extracted with `stride`."""

    name: str
    videos: int
    seconds: float
    fps: float
    stride: int


DATA_SETS = (
    DataSet("K400, train", 240_000, 10, 30, 4),
    DataSet("SSv2, train", 169_000, 4, 12, 3),
    DataSet("10 million videos", 10_000_000, 10, 30, 4),
)


@dataclass(frozen=True)
class Units:
    """Mean costs: core-seconds for a raw frame, stored bytes for a tubelet."""

    frame_s: float
    targets: float
    frames: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--driver", type=int, metavar="N", help="simulate a run of N videos")
    parser.add_argument("--ray", action="store_true", help="with --driver: tasks go through Ray")
    arguments = parser.parse_args()
    if arguments.driver:
        simulate(arguments.driver, arguments.ray)
    elif arguments.videos:
        print_tables(measure(arguments.videos, TargetSpec()))
    else:
        with tempfile.TemporaryDirectory() as folder:
            items = load_manifest("demo", folder, videos=4).items
            print_tables(measure([Path(item.path) for item in items], TargetSpec()))


def measure(videos: list[Path], spec: TargetSpec) -> Units:
    """Extracts the videos one after the other on one core."""
    rows = [_measure_one(video, spec) for video in videos]
    print(f"{'file':<34}{'frames':>8}{'ms/frame':>10}{'targets':>10}{'frames':>10}  kB/tubelet")
    for video, (count, each) in zip(videos, rows):
        sizes = f"{each.targets / 1e3:>10.1f}{each.frames / 1e3:>10.1f}"
        print(f"{video.name[-33:]:<34}{count:>8}{each.frame_s * 1e3:>10.2f}{sizes}")
    parts = zip(*((each.frame_s, each.targets, each.frames) for _, each in rows))
    mean = Units(*(sum(part) / len(rows) for part in parts))
    sizes = f"{mean.targets / 1e3:>10.1f}{mean.frames / 1e3:>10.1f}"
    print(f"{'mean':<42}{mean.frame_s * 1e3:>10.2f}{sizes}\n")
    return mean


def _measure_one(video: Path, spec: TargetSpec) -> tuple[int, Units]:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        with ShardWriter(folder, 0, spec) as writer:
            about = store_video(writer, video, spec)
        seconds = time.process_time() - begun
        sizes = {"targets": 0, "frames": 0}
        for file in Path(folder).rglob("c.*"):
            kind = "frames" if file.parent.name.startswith("frame") else "targets"
            sizes[kind] += file.stat().st_size
    per_tubelet = {kind: size / about.tubelets for kind, size in sizes.items()}
    return about.frames, Units(seconds / about.frames, **per_tubelet)


def print_tables(units: Units) -> None:
    print("| data set | videos | raw frames | tubelets | core-hours | hours on 1000 cores |")
    print("|---|---|---|---|---|---|")
    for each in DATA_SETS:
        frames, tubelets = each.videos * each.seconds * each.fps, each.videos * count(each)
        hours = frames * units.frame_s / 3600
        print(
            f"| {each.name} | {each.videos:,} | {frames / 1e6:,.0f} M | {tubelets / 1e6:,.1f} M "
            f"| {hours:,.0f} | {hours / CORES:,.1f} |"
        )
    print("\n| data set | targets | with frames | shards | files |")
    print("|---|---|---|---|---|")
    for each in DATA_SETS:
        tubelets = each.videos * count(each)
        targets, both = tubelets * units.targets, tubelets * (units.targets + units.frames)
        shards = math.ceil(each.videos / MOST_PER_SHARD)
        files = shards * files_in_shard(each, units)
        print(
            f"| {each.name} | {targets / 1e12:.2f} TB | {both / 1e12:.2f} TB | {shards:,} "
            f"| {files:,} |"
        )
    read = clip_bytes(units)
    node = GPUS * CLIPS_PER_GPU
    print(
        f"\na random clip reads {read / 1e6:.2f} MB; a node of {GPUS} GPUs at {CLIPS_PER_GPU} "
        f"clips/s each: {node * read / 1e9:.1f} GB/s, with 4 crops a clip "
        f"{node * read / 4e9:.1f} GB/s"
    )


def count(data: DataSet) -> int:
    """Returns the number of tubelets of one video."""
    frames, hop = int(data.seconds * data.fps), TUBELET * data.stride
    return (frames - data.stride - 1) // hop + 1


def files_in_shard(data: DataSet, units: Units) -> int:
    """Counts the group's metadata file, and each array's metadata and data files."""
    tubelets = MOST_PER_SHARD * count(data)
    total = 1
    for name, layout in layouts(TargetSpec(stride=data.stride)).items():
        rows = {"frames": tubelets * units.frames, "frame_ends": TUBELET * tubelets}
        total += 1 + math.ceil(rows.get(name, tubelets) / layout.file)
    return total


def clip_bytes(units: Units) -> float:
    """Returns the bytes read for a random clip, with the unused parts of its end chunks."""
    targets = units.targets * (CLIP + CHUNK_TUBELETS - 1)
    return targets + units.frames * CLIP + FRAME_CHUNK


def simulate(videos: int, through_ray: bool) -> None:
    """Runs `mme flows` on invented videos, with tasks that do nothing."""

    def manifest(arguments: argparse.Namespace, generate: bool) -> Manifest:
        items = (
            VideoItem(
                f"class {i % 400:03d}/{i:09d}.mp4", f"/data/class {i % 400:03d}/{i:09d}.mp4", 0
            )
            for i in range(videos)
        )
        return Manifest("folder", "/data", None, ("all",), tuple(items))

    def tasks(
        arguments: argparse.Namespace, jobs: Iterator[ShardJob], display: Any
    ) -> Iterator[ShardResult]:
        if through_ray:
            yield from pool.run_ray(jobs, display.note, None, None, 0)
        else:
            yield from map(_nothing, jobs)

    class Loop:
        """Notes when the first and the last shard were finished."""

        first = last = shards = 0.0

        def finish(self, display: Any, result: ShardResult) -> None:
            self.last = time.monotonic()
            self.first = self.first or self.last
            self.shards += 1

    loop = Loop()
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(flows, "read_manifest", manifest),
        mock.patch.object(flows, "_pool", tasks),
        mock.patch.object(pool, "_write_shard", _nothing),
        mock.patch.object(flows.Display, "finish", lambda *words: loop.finish(*words)),
    ):
        words = ["--dataset", "folder", "--root", "/data", "--store", f"{folder}/store"]
        flows.main(words)
        ended = time.monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        again = multiprocessing.get_context("fork").Process(target=flows.main, args=(words,))
        again.start()
        again.join()
        ledger = Path(folder, "store", "ledger.jsonl").stat().st_size
    rate = (loop.shards - 1) / max(loop.last - loop.first, 1e-9)
    second = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(
        f"\n{videos:,} videos, {loop.shards:,.0f} shards: {rate:,.0f} shards/s, "
        f"{rate * MOST_PER_SHARD:,.0f} videos/s\n"
        f"before the first shard {loop.first - begun:.1f} s, "
        f"after the last {ended - loop.last:.1f} s, processor {time.process_time():.0f} s\n"
        f"peak memory {peak / 1e9:.2f} GB, {peak / videos:,.0f} bytes a video; of a second run, "
        f"with nothing to do, {second / 1e9:.2f} GB; ledger {ledger / 1e6:,.0f} MB"
    )


def _nothing(job: ShardJob, *_: Any) -> ShardResult:
    """Writes a shard's table for videos of 10 s, without targets."""
    rows = [_row(item.id, number) for number, item in enumerate(job.items)]
    attributes = {"format": FORMAT, "spec_hash": job.spec.hash, "videos": rows, "quarantined": []}
    group = seal({"attributes": attributes | blank()})
    open_place(job.store).write(f"{shard_name(job.number)}/zarr.json", group)
    outcomes = (Outcome(i.path, i.id, OK, "", 2.5, job.number, 300, 10.0) for i in job.items)
    result = ShardResult(job.number, tuple(outcomes))
    return pickle.loads(pickle.dumps(result))  # copies the strings, as sending through Ray does


def _row(name: str, number: int) -> dict[str, Any]:
    size = {"height": 256, "width": 340, "hp": 16, "wp": 20}
    count = {"first": 37 * number, "count": 37, "frames": 300, "fps": 30.0}
    return {"id": name, "path": name, "label": 0, "warnings": [], **size, **count}


if __name__ == "__main__":
    main()
