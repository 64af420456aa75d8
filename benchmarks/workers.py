"""Two workers of `mme flows` beside one: videos a second without start-up, runs interleaved.

    python benchmarks/workers.py [--shards 16] [--repeats 3]

Every shard holds the same generated video, so all take equally long. The clock starts when each
worker has finished its first shard. It needs two idle cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mme_core.datasets import VideoItem, demo
from mme_core.spec import TargetSpec
from mme_core.store.target_store import open_or_create_store
from preprocess.jobs import OK, ShardJob
from preprocess.pool import run_ray

SPEC = TargetSpec()


def rate(workers: int, shards: int, video: Path, store: Path) -> float:
    """Shards a second in the steady state."""
    open_or_create_store(store, SPEC, "demo", None, ())
    jobs = (
        ShardJob(number, (VideoItem("video.mp4", str(video)),), SPEC, str(store), "/", 600)
        for number in range(shards)
    )
    finished = []
    for result in run_ray(jobs, lambda *_: None, workers, None, 0):
        finished.append(time.monotonic())
        assert [row.status for row in result.outcomes] == [OK]
    return (shards - workers) / (finished[-1] - finished[workers - 1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--shards", type=int, default=16, help="number of shards, even (default: 16)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each measurement (default: 3)"
    )
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        demo.encode(video, demo.render(0, 0))
        for repeat in range(arguments.repeats):
            for workers, found in rates.items():
                store = Path(folder) / f"store-{workers}-{repeat}"
                found.append(rate(workers, arguments.shards, video, store))
                print(
                    f"{workers} worker{'s' * (workers > 1)}: {found[-1]:.3f} videos/s", flush=True
                )
    ratio = statistics.median(rates[2]) / statistics.median(rates[1])
    load = os.getloadavg()[0]
    print(f"two workers / one: {ratio:.2f} (median of {arguments.repeats}; load {load:.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
