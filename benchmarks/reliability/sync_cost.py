"""How much of stage 1's time do the syncs take that protect shards from a power cut?

    python benchmarks/reliability/sync_cost.py VIDEOS [--limit 24]

Runs `mme flows` on a folder of videos in this process, with shards of the default size. Measures
the time inside `os.fsync`. The store is in a temporary folder below the current one. Prints both
times and the share of the syncs. The exit status is 1 if the share is above 2 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Verdict

from mme_core import cli
from preprocess import pool
from preprocess.isolate import Isolated, ShardResult
from preprocess.jobs import Outcome, ShardJob
from preprocess.shard import write_shard

MOST_PERCENT = 2.0


class SameProcess(Isolated):
    """Writes the shards in this process, because `os.fsync` is measured here."""

    def write(self, job: ShardJob, report: Callable[[Outcome], None]) -> ShardResult:
        outcomes: list[Outcome] = []

        def take(message: dict[str, Any]) -> None:
            if "outcome" in message:
                outcomes.append(Outcome(**message["outcome"]))
                report(outcomes[-1])

        write_shard(job, take)
        return ShardResult(job.number, tuple(outcomes))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of videos")
    parser.add_argument("--limit", type=int, default=24, help="videos (24)")
    arguments = parser.parse_args()
    sync, calls = os.fsync, list[float]()

    def measured(handle: int) -> None:
        began = time.perf_counter()
        sync(handle)
        calls.append(time.perf_counter() - began)

    os.fsync = measured  # type: ignore[assignment]  # it is only given numbers here
    pool.Isolated = SameProcess  # type: ignore[misc]
    with tempfile.TemporaryDirectory(prefix="sync-", dir=Path.cwd()) as folder:
        words = ["flows", "--dataset", "folder", "--root", str(arguments.folder), "--serial"]
        words += ["--limit", str(arguments.limit), "--store", f"{folder}/store"]
        began = time.perf_counter()
        status = cli.main(words)
        whole = time.perf_counter() - began
    share = 100 * sum(calls) / whole
    print(f"{len(calls)} syncs took {sum(calls):.3f} s of {whole:.1f} s: {share:.2f} %")
    verdict = Verdict()
    verdict.judge("the run succeeds", [f"exit status {status}"] if status else [])
    over = [f"{share:.2f} %"] if share > MOST_PERCENT else []
    verdict.judge(f"the syncs take at most {MOST_PERCENT:g} % of the time", over)
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
