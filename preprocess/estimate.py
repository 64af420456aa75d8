"""Estimates the time and the disk space that stage 1 needs, from a random sample of the videos.

    mme estimate --dataset k400 --root k400 [--sample 32] [--cores 512] [--json] [spec.stride=2 ...]

One core of this machine processes the sample. The result is deleted.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mme_core.cores import usable_cores
from mme_core.datasets import Manifest
from mme_core.processes import plugin_path
from mme_core.progress import Progress
from mme_core.report.words import counted, duration, size
from mme_core.spec import TargetSpec
from mme_core.store.target_store import open_or_create_store
from preprocess.arguments import command_parser, positive, read_manifest, read_spec, seconds
from preprocess.isolate import Isolated
from preprocess.jobs import OK, Outcome, ShardJob, shared_servers
from preprocess.summary import core_unit


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit status."""
    parser = command_parser("estimate", __doc__)
    add = parser.add_argument
    add("--sample", type=positive, default=16, metavar="N", help="number of videos")
    seed_help = "random seed that chooses the sample"
    add("--seed", type=int, default=0, metavar="N", help=seed_help)
    cores_help = "number of cores of the real run (default: the cores of this machine)"
    add("--cores", type=positive, default=usable_cores(), metavar="N", help=cores_help)
    timeout_help = "time limit for one video, in seconds"
    add("--timeout", type=seconds, default=1800, metavar="S", help=timeout_help)
    add("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_intermixed_args(argv)
    spec, manifest = read_spec(arguments), read_manifest(arguments)
    number = min(arguments.sample, len(manifest.items))
    outcomes, size = _try(manifest, spec, number, arguments.seed, arguments.timeout)
    about = estimate(outcomes, size, len(manifest.items), arguments.cores)
    if arguments.json:
        print(json.dumps(about, indent=2))
    else:
        print(*describe(about), sep="\n")
    return 0


def _try(
    manifest: Manifest, spec: TargetSpec, number: int, seed: int, timeout: float
) -> tuple[Sequence[Outcome], int]:
    """Processes a sample: its outcomes, and the size of its shard in bytes."""
    items = tuple(random.Random(seed).sample(manifest.items, number))
    with (
        tempfile.TemporaryDirectory() as store,
        Isolated(plugin_path()) as isolated,
        Progress(number, "videos") as progress,
    ):
        open_or_create_store(store, spec, manifest.dataset, manifest.split, manifest.class_names)
        servers = shared_servers(manifest.items)
        job = ShardJob(0, items, spec, store, manifest.root, timeout, servers=servers)

        def count(outcome: Outcome) -> None:
            progress.advance(1, outcome.status != OK)

        outcomes = isolated.write(job, count).outcomes
        files = (path for path in Path(store, "shards").rglob("*") if path.is_file())
        return outcomes, sum(path.stat().st_size for path in files)


def estimate(
    outcomes: Sequence[Outcome], size: int, videos: int, cores: int
) -> dict[str, float | int]:
    """The estimate, as `--json` prints it.

    outcomes  of the sample
    size      bytes of the sample's shard
    videos    number of videos of the data set
    cores     number of cores of the real run

    core_hours_error is two standard errors of the sample's mean.
    """
    times = [row.seconds for row in outcomes if row.seconds is not None]
    mean = statistics.fmean(times)
    error = statistics.stdev(times) / math.sqrt(len(times)) if len(times) > 1 else mean
    frames = sum(row.frames for row in outcomes)
    failed = sum(row.status != OK for row in outcomes)
    return {
        "sample": len(outcomes),
        "videos": videos,
        "seconds_per_video": mean,
        "frames_per_s": frames / sum(times) if frames else 0.0,
        "core_hours": mean * videos / 3600,
        "core_hours_error": 2 * error * videos / 3600,
        "cores": cores,
        "wall_s": mean * videos / cores,
        "bytes": size / len(outcomes) * videos,
        "sample_failures": failed,
        "failures": failed / len(outcomes) * videos,
    }


def describe(about: Mapping[str, float | int]) -> list[str]:
    """Lines of the estimate."""
    an_hour, unit = core_unit(about["core_hours"])
    work, error = about["core_hours"] * an_hour, about["core_hours_error"] * an_hour
    return [
        f"sample       {about['sample']} of {counted(int(about['videos']), 'video')}: "
        f"{about['seconds_per_video']:.2f} s a video on one core, "
        f"{about['frames_per_s']:.0f} frames/s",
        f"work         {work:.3g} {unit} (± {error:.2g})",
        f"wall time    {duration(about['wall_s'])} on {counted(int(about['cores']), 'core')}",
        f"store        {size(about['bytes'])}",
        f"failures     {about['sample_failures']} in the sample: about {about['failures']:.0f} "
        "in all",
    ]
