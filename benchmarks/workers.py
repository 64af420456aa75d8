"""Workers of `mme flows` beside bare processes, one and two of each: runs in turn.

    python benchmarks/workers.py [--shards 16] [--repeats 3] [--workers 2]

Every shard holds the same generated video, so all take equally long. "Bare" are the processes that
decode and compute (`preprocess.child`), fed by threads of this program; "Ray" adds all that a run
on one machine needs. The whole time counts from before Ray's start to the last shard; the rate
counts from when each worker has finished its first shard. It needs idle cores; the load is printed.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mme_core.datasets import VideoItem, demo
from mme_core.processes import plugin_path
from mme_core.spec import TargetSpec
from mme_core.store.target_store import open_or_create_store
from preprocess.isolate import Isolated, ShardResult
from preprocess.jobs import OK, ShardJob
from preprocess.pool import run_ray

SPEC = TargetSpec()

Run = Callable[[list[ShardJob], int], Iterator[ShardResult]]


def on_ray(jobs: list[ShardJob], workers: int) -> Iterator[ShardResult]:
    return run_ray(jobs, lambda *_: None, workers, None, 0)


def bare(jobs: list[ShardJob], workers: int) -> Iterator[ShardResult]:
    waiting: queue.SimpleQueue[ShardJob] = queue.SimpleQueue()
    results: queue.SimpleQueue[ShardResult] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        with Isolated(plugin_path()) as isolated:
            while True:
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                results.put(isolated.write(job, lambda outcome: None))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for _ in jobs:
        yield results.get()
    for thread in threads:
        thread.join()


def measure(run: Run, workers: int, shards: int, video: Path, store: Path) -> tuple[float, float]:
    """Seconds of the whole run, and shards a second in the steady state."""
    open_or_create_store(store, SPEC, "demo", None, ())
    item = VideoItem("video.mp4", str(video))
    jobs = [ShardJob(number, (item,), SPEC, str(store), "/", 600) for number in range(shards)]
    start, finished = time.monotonic(), []
    for result in run(jobs, workers):
        finished.append(time.monotonic())
        assert [row.status for row in result.outcomes] == [OK]
    steady = (shards - workers) / (finished[-1] - finished[workers - 1])
    return finished[-1] - start, steady


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--shards", type=int, default=16, help="number of shards (default: 16)")
    add("--repeats", type=int, default=3, help="runs of each measurement (default: 3)")
    add("--workers", type=int, default=2, help="the larger number of workers (default: 2)")
    arguments = parser.parse_args()
    many = arguments.workers
    kinds = {(name, n): run for n in (1, many) for name, run in (("bare", bare), ("Ray", on_ray))}
    found: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in kinds}
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        demo.encode(video, demo.render(0, 0))
        for repeat in range(arguments.repeats):
            for (name, workers), run in kinds.items():
                store = Path(folder) / f"store-{name}-{workers}-{repeat}"
                seconds, rate = measure(run, workers, arguments.shards, video, store)
                found[name, workers].append((seconds, rate))
                print(
                    f"{name:5}{workers:3}: {seconds:7.1f} s in all, {rate:.3f} videos/s; "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    middle = {key: [statistics.median(part) for part in zip(*runs)] for key, runs in found.items()}
    for name in ("bare", "Ray"):
        (whole_1, rate_1), (whole_n, rate_n) = middle[name, 1], middle[name, many]
        print(f"{name}: {many} / 1 = {whole_1 / whole_n:.2f} in all, {rate_n / rate_1:.2f} steady")
    for workers in (1, many):
        (whole, rate), (ray_whole, ray_rate) = middle["bare", workers], middle["Ray", workers]
        print(
            f"Ray / bare, {workers}: {ray_rate / rate:.2f} of the rate, {ray_whole - whole:+.1f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
