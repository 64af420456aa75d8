"""Makes other targets of a store's videos from its kept flow, without computing flow.

    mme retarget STORE --store NEW [spec.length=8 ...] [--root videos] [--workers 8]

STORE was made by `mme flows --keep-flow`. NEW has the same videos in the same shards. The fields of
its specification that are not named are those of STORE. The videos are decoded again, for HOG and
frames. The same command resumes a run that was stopped.

Exit status: 0 success; 1 an error stopped the run; 2 wrong arguments; 130 or 143 stopped by Ctrl-C
or SIGTERM.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing

from rich.console import Console

from mme_core.cores import usable_cores
from mme_core.datasets import VideoItem
from mme_core.errors import StoreError, UsageError, listed
from mme_core.io.place import Place, open_place
from mme_core.io.remote import is_relative, is_url, join
from mme_core.parser import CommandParser
from mme_core.report.words import counted
from mme_core.spec import TUBELET, TargetSpec
from mme_core.store import TargetStore
from mme_core.store.layout import FLOW, flow_name, shard_name
from mme_core.store.leftovers import hollow_shards
from mme_core.store.table import (
    load_table,
    lost_shards,
    read_attributes,
    shard_numbers,
    unmarked_shards,
)
from mme_core.store.target_store import open_or_create_store
from mme_core.terminal import is_quiet
from preprocess.arguments import absolute, check_folder, positive, seconds
from preprocess.driver import recorded, say, until_terminated, without_leftovers
from preprocess.hollow import EMPTY
from preprocess.isolate import ShardResult
from preprocess.jobs import ShardJob, shared_servers
from preprocess.ledger import Ledger, folder_of_videos, read_rows
from preprocess.lock import StoreLock
from preprocess.plan import check_free
from preprocess.pool import run_ray, run_serial
from preprocess.progress import Display
from preprocess.summary import describe_spec, run_line, summarise

# Fields that the kept flow leaves open. The others change the region, or the flow itself.
FREE = (
    *("stride", "hop", "points", "length", "check", "camera"),
    *("hog_bins", "hog_cell", "cells", "frames", "jpeg_quality"),
)


def parser() -> CommandParser:
    made = CommandParser("retarget", __doc__)
    add = made.add_argument
    add("source", metavar="STORE", help="store with kept flow")
    add("spec", nargs="*", metavar="spec.FIELD=VALUE", help=f"one of: {', '.join(FREE)}")
    add("--store", required=True, metavar="NEW", help="folder or URL where the targets go")
    add("--root", metavar="DIR", help="where the videos are now (default: where they were)")
    workers_help = "number of processes (default: one for each core)"
    add("--workers", type=positive, metavar="N", help=workers_help)
    add("--serial", action="store_true", help="process one video at a time, without Ray")
    timeout_help = "time limit for one video, in seconds (default: 1800)"
    add("--timeout", type=seconds, default=1800, metavar="S", help=timeout_help)
    return made


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit status."""
    arguments = parser().parse_intermixed_args(argv)
    return until_terminated(lambda: _retarget(arguments))


def _retarget(arguments: argparse.Namespace) -> int:
    if arguments.serial and arguments.workers:
        raise UsageError("--serial uses no Ray: leave out --workers")
    source, place = TargetStore(arguments.source), open_place(absolute(arguments.store))
    flow = open_place(absolute(source.url))
    if is_url(flow.url) or not flow.exists(FLOW):
        raise StoreError(
            f"{source.url} keeps no flow on a disk: make it with `mme flows --keep-flow`"
        )
    if flow.url == place.url:
        raise UsageError(f"--store {arguments.store} must be another store than {source.url}")
    spec = changed(source.spec, arguments.spec)
    _check_whole(flow)
    with StoreLock(place) as lock:
        open_or_create_store(
            place.url, spec, source.dataset, source.split, source.class_names, flow.url
        )
        with without_leftovers(place, lock):
            _run(arguments, source, flow, spec, place, lock.token)
        load_table(place, spec.hash)  # writes the index, for readers
    return 0


def _check_whole(source: Place) -> None:
    """Raises StoreError for a store that has lost a shard: the new one would lack its videos."""
    if lost := sorted({*lost_shards(source), *unmarked_shards(source)}):
        raise _lost_error(source, lost)


def _lost_error(source: Place, numbers: list[int]) -> StoreError:
    return StoreError(
        f"{source.url} has lost {listed([shard_name(number) for number in numbers])}: run `mme "
        f"repair {source.url}`, and then the same command again"
    )


def changed(spec: TargetSpec, overrides: list[str]) -> TargetSpec:
    """The specification with these fields changed. Raises UsageError for a field not in FREE."""
    base = spec.to_dict()
    if spec.hop == TUBELET * spec.stride:
        base["hop"] = None  # it follows the stride, as it did
    made = TargetSpec.from_overrides(overrides, base)
    differing = made.differences(spec, "asked for", "in the store with the flow")
    fixed = [text for text in differing if text.partition(":")[0] not in FREE]
    if fixed:
        raise UsageError(
            f"spec.{fixed[0]}: kept flow cannot be used for this; make the store with `mme flows`"
        )
    if made.check:
        raise UsageError(
            "spec.check=true needs backward flow, and only forward flow is kept: add "
            "spec.check=false"
        )
    return made


def _run(
    arguments: argparse.Namespace,
    source: TargetStore,
    flow: Place,
    spec: TargetSpec,
    place: Place,
    lock: str,
) -> None:
    console = Console(quiet=is_quiet())
    stored = zip(source.videos["id"].tolist(), source.videos["path"].tolist())
    root = arguments.root or folder_of_videos(read_rows(flow), stored)
    check_free(place, "remove it, and run the same command again")
    ledger = Ledger.load(place, spec.hash, root)
    there = shard_numbers(flow)
    hollow = sorted(set(hollow_shards(place)).intersection(there))
    for number in hollow:
        ledger.lose(number)
    wanted = [number for number in there if number not in ledger.shards]
    blank = ShardJob(0, (), spec, place.url, root, arguments.timeout, lock=lock)
    jobs = [_job(blank, flow, number) for number in wanted]
    servers = shared_servers(item for job in jobs for item in job.items)
    jobs = [dataclasses.replace(job, servers=servers) for job in jobs]
    if jobs:
        check_folder(root)
    if any(is_relative(item.path) for job in jobs for item in job.items):
        raise UsageError(
            f"nothing says in which folder the videos of {flow.url} are: give it by --root"
        )
    todo = sum(len(job.items) for job in jobs)
    say(
        console,
        f"flow         {source.url}: {counted(len(source.videos), 'video')}; "
        f"files in {root or 'their paths'}",
        f"store        {place.url}",
        f"targets      {describe_spec(spec)}",
        *(f"damaged      {shard_name(n)} {EMPTY}: remove it and make it again" for n in hollow),
        f"to do        {counted(todo, 'video')} in {counted(len(jobs), 'shard')}",
    )
    for number in hollow:
        place.remove(shard_name(number))
    with (
        Display(todo, console) as display,
        closing(_pool(arguments, iter(jobs), display)) as results,
    ):
        deque(recorded(results, ledger, place, lock, display), maxlen=0)
    if ledger.stale:
        ledger.save()
    say(console, *summarise(ledger, set(source.videos["id"].tolist())))
    if jobs:
        say(console, run_line(display.frames, display.seconds, wanted, place))


def _job(blank: ShardJob, flow: Place, number: int) -> ShardJob:
    """Writes the videos of one shard again; those that it quarantined stay quarantined."""
    table = read_attributes(flow, number)
    if table is None:  # a power cut has emptied its zarr.json
        raise _lost_error(flow, [number])
    rows = [*table["videos"], *table["quarantined"]]
    items = (VideoItem(row["id"], join(blank.root, row["path"]), row["label"]) for row in rows)
    return dataclasses.replace(
        blank,
        number=number,
        items=tuple(items),
        kept=flow.at(flow_name(number)),
        poison={row["id"]: row["reason"] for row in table["quarantined"]},
    )


def _pool(
    arguments: argparse.Namespace, jobs: Iterator[ShardJob], display: Display
) -> Generator[ShardResult]:
    if arguments.serial:
        return run_serial(jobs, display.note)
    return run_ray(jobs, display.note, arguments.workers or usable_cores(), None, 0)
