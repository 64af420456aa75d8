"""Reads every chunk of a store and says what is wrong, and where.

    mme verify STORE [--deep] [--workers 8] [--json]

Checked: checksums, shapes and codings of the arrays, the tables against the arrays and against the
specification, the specification's hash, value ranges, frames, duplicate ids, the index and the
ledger against the shards, and what killed writers left behind. Exit status 1 if there is a problem.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mme_core.errors import StoreError, UsageError
from mme_core.io.place import Place, open_place
from mme_core.parser import CommandParser
from mme_core.processes import ChildEnvironment, die_with_parent
from mme_core.progress import follow
from mme_core.report.words import counted
from mme_core.store.layout import LEDGER, shard_name
from mme_core.store.leftovers import leftovers
from mme_core.store.table import COLUMNS, OMITTED, load_table, shard_numbers
from mme_core.store.target_store import read_store_file
from mme_core.terminal import plain
from preprocess.jobs import OK
from preprocess.ledger import read_row
from preprocess.verify_shard import ShardReport, check_shard


@dataclass
class Report:
    """What was found. Problems make the exit status 1; notes do not."""

    shards: int = 0
    videos: int = 0
    tubelets: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_store(
    url: str, *, deep: bool = False, workers: int = 1, progress: bool = False
) -> Report:
    """Checks a store. `deep` decodes every stored frame; without it, one frame of each video.

    Raises StoreError if there is no store.
    """
    place = open_place(url)
    about = read_store_file(place)
    spec, classes = about["spec"], len(about["class_names"])
    left = leftovers(url)
    numbers = [number for number in shard_numbers(place) if shard_name(number) not in left]
    jobs = [(url, number, spec, classes, deep) for number in numbers]
    reports: Iterable[ShardReport] = _map(jobs, workers)
    if progress:
        reports = follow(reports, len(jobs), "shards verified")
    report = Report(shards=len(numbers))
    checked: list[ShardReport] = []
    for one in reports:
        report.problems += one.problems
        report.tubelets += one.tubelets
        report.videos += len(one.ids)
        checked.append(one)
    report.problems += _duplicates(checked)
    report.problems += _check_index(place, spec.hash, checked)
    report.problems += _check_ledger(place, checked)
    report.notes += [
        f"{place.at(name)}: left by a writer that was killed, or one that is at work; readers do "
        "not see it, and `mme flows` removes it"
        for name in left
    ]
    if not numbers:
        report.problems.append(f"{place.url} has no finished shard")
    return report


def _map(jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[ShardReport]:
    if workers == 1:
        yield from (check_shard(*job) for job in jobs)
        return
    with ChildEnvironment(), _pool(workers) as pool:
        yield from pool.map(check_shard, *zip(*jobs))


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, die_with_parent, (os.getpid(),))


def _duplicates(reports: Iterable[ShardReport]) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for report in reports:
        for name in report.ids:
            places.setdefault(name, []).append(shard_name(report.number))
    for name, found in places.items():
        if len(found) > 1:
            yield f"video '{name}' is stored {len(found)} times, in {', '.join(found)}"


def _check_index(place: Place, spec_hash: str, reports: list[ShardReport]) -> Iterator[str]:
    """The table that readers get must be that of the shards."""
    if any(report.problems for report in reports):
        return  # it cannot be built from damaged tables
    try:
        table = load_table(place, spec_hash)
    except StoreError as error:
        yield str(error)
        return
    rows = [OMITTED | row | {"shard": report.number} for report in reports for row in report.rows]
    same = len(rows) == len(table) and all(
        {name: row[name] for name in COLUMNS} == stored for row, stored in zip(rows, table)
    )
    if not same:
        yield f"{place.at('index.npz')} is not what the shards say; `mme repair` writes it anew"


def _check_ledger(place: Place, reports: Iterable[ShardReport]) -> Iterator[str]:
    """Every video that the ledger calls stored must be in a shard."""
    stored = {name for report in reports for name in report.ids}
    try:
        lines = place.read(LEDGER).splitlines()
    except FileNotFoundError:
        return
    lost = []
    for number, line in enumerate(lines, 1):
        try:
            row = read_row(line)
        except ValueError as error:
            yield (
                f"{place.at(LEDGER)}, line {number} is damaged ({error}); `mme repair` writes it "
                "anew"
            )
            continue
        if row.status == OK and row.id not in stored:
            lost.append(row.id)
    if lost:
        yield (
            f"{place.at(LEDGER)} calls {counted(len(lost), 'video')} stored that no shard has "
            f"({', '.join(lost[:3])}{', …' if len(lost) > 3 else ''}); `mme repair` "
            "mends it"
        )


def main(argv: Sequence[str]) -> int:
    parser = CommandParser("verify", __doc__)
    add = parser.add_argument
    add("store", metavar="STORE", help="folder or URL of the store")
    deep_help = "decode every stored frame (default: one of each video)"
    add("--deep", action="store_true", help=deep_help)
    add("--workers", type=int, default=1, metavar="N", help="number of processes")
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers} must be at least 1")
    report = verify_store(args.store, deep=args.deep, workers=args.workers, progress=True)
    if args.json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
        return 1 if report.problems else 0
    for note in report.notes:
        print(plain(f"note: {note}"))
    for problem in report.problems:
        print(plain(problem))
    found = len(report.problems)
    verdict = counted(found, "problem") if found else "no problem"
    print(
        f"{plain(args.store)}: {counted(report.videos, 'video')}, "
        f"{counted(report.tubelets, 'tubelet')}, {counted(report.shards, 'shard')}: "
        f"{verdict} found"
    )
    return 1 if found else 0
