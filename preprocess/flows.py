"""Computes the motion-trajectory targets of a data set and writes them to a store (stage 1).

    mme flows --dataset folder --root videos --store store [--workers 8] [spec.stride=2 ...]

Each video is either stored, or quarantined: left out, with the reason in STORE/ledger.jsonl. The
same command resumes a run that was stopped, and adds new videos of the data set.

Exit status: 0 success; 1 an error stopped the run; 2 wrong arguments; 3 more quarantined videos
than --max-failures; 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from rich.console import Console

from mme_core.cores import usable_cores
from mme_core.datasets import Manifest, VideoItem
from mme_core.errors import UsageError
from mme_core.io.place import Place, open_place
from mme_core.io.remote import is_url
from mme_core.parser import CommandParser
from mme_core.report.words import counted
from mme_core.spec import TargetSpec
from mme_core.store.agreement import check_shards
from mme_core.store.layout import FLOW, LEDGER, STORE, shard_name
from mme_core.store.table import load_table, shard_numbers
from mme_core.store.target_store import open_or_create_store
from mme_core.terminal import is_quiet, plain
from preprocess.arguments import (
    absolute,
    command_parser,
    positive,
    read_manifest,
    read_spec,
    seconds,
)
from preprocess.driver import recorded, say, until_terminated, without_leftovers
from preprocess.failures import Failures
from preprocess.hollow import find_hollow
from preprocess.isolate import ShardResult
from preprocess.jobs import QUARANTINED, ShardJob, shared_servers
from preprocess.labels import check_labels
from preprocess.ledger import Ledger
from preprocess.lock import StoreLock
from preprocess.plan import Shard, check_free, choose, default_videos_per_shard, plan_shards
from preprocess.plugin_check import check_plugins
from preprocess.pool import run_ray, run_serial
from preprocess.progress import Display
from preprocess.summary import describe_lost, describe_spec, estimate, run_line, summarise

TOO_MANY_FAILURES = 3


def parser() -> CommandParser:
    arguments = command_parser("flows", __doc__)
    add = arguments.add_argument
    add("--store", required=True, metavar="DIR", help="folder or URL where the targets go")
    workers_help = "number of processes (default: one for each core of the machine or cluster)"
    add("--workers", type=positive, metavar="N", help=workers_help)
    shard_help = "number of videos in a shard (default: √(number of videos), at most 64)"
    add("--videos-per-shard", type=positive, metavar="N", help=shard_help)
    address_help = "Ray cluster: HOST:PORT or auto (default: only this machine)"
    add("--address", metavar="ADDRESS", help=address_help)
    add("--serial", action="store_true", help="process one video at a time, without Ray")
    gpus_help = (
        "number of GPUs of each task, for a network; 0.25: four tasks share one (default: 0)"
    )
    add("--gpus-per-task", type=float, default=0, metavar="G", help=gpus_help)
    timeout_help = "time limit for one video, in seconds (default: 1800)"
    add("--timeout", type=seconds, default=1800, metavar="S", help=timeout_help)
    add("--limit", type=int, metavar="N", help="use only the first N videos (default: all)")
    fraction_help = "use only a random fraction of the videos, 0 < F <= 1 (default: all)"
    add("--fraction", type=float, metavar="F", help=fraction_help)
    seed_help = "random seed of --fraction (default: 0)"
    add("--seed", type=int, default=0, metavar="N", help=seed_help)
    failures_help = "stop when more than N videos are quarantined (default: no limit)"
    add("--max-failures", type=int, metavar="N", help=failures_help)
    keep_help = "keep the flow of every frame pair in STORE/flow, for `mme retarget`"
    add("--keep-flow", action="store_true", help=keep_help)
    retry_help = "process quarantined videos again (default: leave them quarantined)"
    add("--retry-quarantined", action="store_true", help=retry_help)
    add("--dry-run", action="store_true", help="print the plan, and write nothing")
    return arguments


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit status."""
    arguments = parser().parse_intermixed_args(argv)
    return until_terminated(lambda: _flows(arguments))


def _flows(arguments: argparse.Namespace) -> int:
    _check(arguments)
    spec = read_spec(arguments)
    if not arguments.address:  # workers on other machines may have what is missing here
        check_plugins(spec)
    manifest = read_manifest(arguments, generate=not arguments.dry_run)
    items = choose(manifest.items, arguments.limit, arguments.fraction, arguments.seed)
    place = open_place(absolute(arguments.store))
    console = Console(quiet=is_quiet())
    is_new = not (place.exists(STORE) or shard_numbers(place))
    work = _Work(arguments, manifest, items, spec, place, is_new, console)
    if arguments.dry_run:
        _check_flow(work)
        work.check_store()
        _prepare(work)
        return 0
    with StoreLock(place) as lock:
        _check_flow(work)
        work.check_store()
        with without_leftovers(place, lock):
            status = _run(work, lock.token)
        del manifest, items, work  # they may list millions of videos, and so does the table
        load_table(place, spec.hash)  # writes the index, for readers
    return status


@dataclass(frozen=True)
class _Work:
    """What the arguments ask for."""

    arguments: argparse.Namespace
    manifest: Manifest
    items: Sequence[VideoItem]  # the chosen videos of the manifest
    spec: TargetSpec
    place: Place
    is_new: bool
    console: Console

    @property
    def keep_flow(self) -> bool:
        """Whether flow is kept: asked for, or begun by an earlier run."""
        return self.arguments.keep_flow or self.place.exists(FLOW)

    def check_store(self) -> None:
        """Checks what is there of the store: store.json, or without it the shards alone."""
        if self.place.exists(STORE):
            self.open_store()
        else:
            check_shards(self.place, self.spec.hash)

    def open_store(self) -> None:
        """Creates the store, or checks that it has the same specification and classes."""
        about = self.manifest
        open_or_create_store(
            self.place.url, self.spec, about.dataset, about.split, about.class_names
        )

    def say(self, *lines: str) -> None:
        say(self.console, *lines)


def _run(work: _Work, lock: str) -> int:
    check_free(work.place, f"run `mme repair {work.place.url}`, and then the same command again")
    plan = _prepare(work)
    work.open_store()
    ledger, known = plan.ledger, () if work.arguments.retry_quarantined else plan.ledger
    failures = Failures(work.arguments.max_failures, known, {item.id for item in work.items})
    job = ShardJob(
        number=0,
        items=(),
        spec=work.spec,
        store=work.place.url,
        root=work.manifest.root,
        timeout=work.arguments.timeout,
        servers=shared_servers(work.manifest.items),
        keep_flow=work.keep_flow,
        lock=lock,
    )
    jobs = (replace(job, number=shard.number, items=shard.items) for shard in plan.shards)
    finished: list[int] = []
    if plan.todo and not failures.too_many:
        for number in plan.remake:
            work.place.remove(shard_name(number))
        with (
            Display(plan.todo, work.console) as display,
            closing(_pool(work.arguments, jobs, display)) as results,
        ):
            for result in recorded(results, ledger, work.place, lock, display):
                finished.append(result.number)
                failures.count(result.outcomes)
                if failures.too_many:
                    break
    if ledger.stale:
        ledger.save()
    work.say(*summarise(ledger, failures.wanted))
    if finished:
        work.say(run_line(display.frames, display.seconds, finished, work.place))
    if failures.too_many:
        print(plain(f"mme flows: {failures} (see {work.place.at(LEDGER)})"), file=sys.stderr)
        return TOO_MANY_FAILURES
    return 0


@dataclass(frozen=True)
class _Plan:
    """What the run has to do.

    todo    number of videos to process
    shards  those that it writes
    remake  numbers of hollow shards that must go first
    """

    ledger: Ledger
    todo: int
    shards: Iterator[Shard]
    remake: list[int]


def _prepare(work: _Work) -> _Plan:
    """Makes the plan and prints it. Changes nothing."""
    arguments, manifest, items, place = work.arguments, work.manifest, work.items, work.place
    ids = {item.id for item in items}
    whole = len(items) == len(manifest.items)
    hollow = find_hollow(place, work.spec, manifest.root, ids, whole)
    ledger = Ledger(place, manifest.root)
    if not work.is_new:
        ledger = Ledger.load(place, work.spec.hash, manifest.root, hollow.kept)
    check_labels(ledger, items, place.url)
    for number in hollow.remake:
        ledger.lose(number)
    left = [row for row in ledger.lost if row.id not in ids]
    retried = arguments.retry_quarantined
    done = {row.id for row in ledger if not (retried and row.status == QUARANTINED)}
    todo = sum(item.id not in done for item in items)
    size = arguments.videos_per_shard or default_videos_per_shard(len(items))
    workers = 1 if arguments.serial else _workers(arguments)
    split = f", split '{manifest.split}'" if manifest.split else ""
    chosen = f", {len(items)} of them chosen" if len(items) < len(manifest.items) else ""
    where = f"Ray at {arguments.address}" if workers is None else f"workers: {workers}"
    videos = counted(len(manifest.items), "video")
    classes = counted(len(manifest.class_names), "class", "classes")
    work.say(
        f"data set     {manifest.dataset} in {manifest.root}{split}: {videos}{chosen}, {classes}",
        *(f"             {note}" for note in manifest.notes),
        f"store        {place.url}{' (new)' if work.is_new else ''}",
        f"targets      {describe_spec(work.spec)}",
        *(f"damaged      {line}" for line in hollow.lines),
        *describe_lost(left, place.url),
        f"to do        {counted(todo, 'video')} in {counted(math.ceil(todo / size), 'shard')} of "
        f"{size}, {where}",
    )
    if todo and (guess := estimate(ledger, todo, workers)):
        work.say(f"             {guess}")
    taken = ledger.shards | {row.shard for row in left}
    return _Plan(ledger, todo, plan_shards(items, done, taken, size), hollow.remake)


def _pool(
    arguments: argparse.Namespace, jobs: Iterator[ShardJob], display: Display
) -> Generator[ShardResult]:
    if arguments.serial:
        return run_serial(jobs, display.note)
    return run_ray(
        jobs, display.note, _workers(arguments), arguments.address, arguments.gpus_per_task
    )


def _workers(arguments: argparse.Namespace) -> int | None:
    """The number of processes; None: one for each core of a cluster."""
    return arguments.workers or (None if arguments.address else usable_cores())


def _check(arguments: argparse.Namespace) -> None:
    if arguments.limit is not None and arguments.fraction is not None:
        raise UsageError("--limit and --fraction exclude each other")
    if arguments.serial and (arguments.workers or arguments.address or arguments.gpus_per_task):
        raise UsageError("--serial uses no Ray: leave out --workers, --address, --gpus-per-task")
    if arguments.max_failures is not None and arguments.max_failures < 0:
        raise UsageError(f"--max-failures {arguments.max_failures} must not be negative")
    if not 0 <= arguments.gpus_per_task < math.inf:
        raise UsageError(f"--gpus-per-task {arguments.gpus_per_task:g} must be 0 or more")
    if arguments.gpus_per_task > 1 and not arguments.gpus_per_task.is_integer():
        raise UsageError(
            f"--gpus-per-task {arguments.gpus_per_task:g}: more than one must be a whole number"
        )


def _check_flow(work: _Work) -> None:
    """Every shard of a store that keeps flow has its own."""
    asked, place = work.arguments.keep_flow, work.place
    if asked and is_url(place.url):
        raise UsageError("--keep-flow needs a --store on a disk, for its HDF5 files")
    if asked and work.spec.tracks:
        raise UsageError("--keep-flow: spec.tracks computes no flow; leave one out")
    if asked and not place.exists(FLOW) and shard_numbers(place):
        raise UsageError(
            f"--keep-flow: {place.url} has shards without their flow; use another --store"
        )
