"""`mme repair`: makes the damaged and missing shards of a store anew, and only these.

    mme repair STORE [--root DIR] [--dry-run]

A shard is a function of its videos and of the store's specification, so a repaired store has the
bytes that it had before. The videos are read where the ledger says they are, or below --root. A
damaged shard stays as it is while one of its videos cannot be read: what is left of it may be all
that is left. A missing shard stays missing then, and the ledger keeps its rows. A video that
several shards store stays in one of them, in an undamaged one if there is one. Kept flow is made
anew with its shard. Once no shard is damaged, the index and the ledger are written anew from them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from mme_core.datasets import VideoItem
from mme_core.datasets.folder import absolute
from mme_core.datasets.paths import any_path
from mme_core.errors import StoreError
from mme_core.io.place import Place, open_place
from mme_core.io.remote import is_relative, join
from mme_core.parser import CommandParser
from mme_core.processes import plugin_path
from mme_core.progress import follow
from mme_core.report.words import counted
from mme_core.spec import TargetSpec
from mme_core.store.layout import FLOW, INDEX, flow_name, shard_name
from mme_core.store.leftovers import remove_leftovers
from mme_core.store.table import load_table
from mme_core.store.target_store import KEPT_FLOW, open_or_create_store, read_store_file
from mme_core.store.writer import MARKER
from mme_core.terminal import plain
from preprocess.arguments import check_folder, seconds
from preprocess.isolate import Isolated
from preprocess.jobs import QUARANTINED, Outcome, ShardJob, shared_servers
from preprocess.ledger import Ledger, read_rows
from preprocess.lock import StoreLock, check_owner
from preprocess.repair_plan import Entry, Plan, Planner

TIMEOUT_S = 1800


class Repair:
    """One repair of the store at `place`; `token` is that of the lock that the caller holds."""

    def __init__(self, place: Place, token: str, root: str | None, timeout: float) -> None:
        self.place, self.token, self.timeout = place, token, timeout
        self.about = read_store_file(place)
        self.spec: TargetSpec = self.about["spec"]
        classes, rows = len(self.about["class_names"]), list(read_rows(place))
        self._planner = Planner(place, self.spec, classes, rows)
        self.root = str(absolute(any_path(root))) if root else self._planner.folder

    def plan(self) -> Plan:
        return self._planner.plan(self.root)

    def remake(self, number: int, entries: list[Entry], isolated: Isolated) -> str:
        """Makes a shard again. Returns why that failed, or "" if it did not fail."""
        items = tuple(VideoItem(e.id, join(self.root, e.path), e.label) for e in entries)
        if any(is_relative(item.path) for item in items):
            return (
                f"{shard_name(number)} stays {self._state(number)}: nothing says in which folder "
                "its videos are; give it by --root, and repair again"
            )
        with tempfile.TemporaryDirectory(prefix="mme-repair-") as scratch:
            about = self.about
            open_or_create_store(
                scratch, self.spec, about["dataset"], about["split"], about["class_names"]
            )
            keep = self.place.exists(FLOW)
            job = ShardJob(
                number,
                items,
                self.spec,
                scratch,
                self.root,
                self.timeout,
                servers=shared_servers(items),
                keep_flow=keep,
            )
            outcomes = isolated.write(job, lambda _: None).outcomes
            failed = _newly_failed(entries, outcomes)
            if failed:
                return (
                    f"{shard_name(number)} stays {self._state(number)}: {failed.path}: "
                    f"{failed.reason}; put the video back or give its folder by --root, and "
                    "repair again"
                )
            self._replace(number, open_place(scratch), keep)
        return ""

    def _state(self, number: int) -> str:
        return "as it is" if self.place.exists(shard_name(number)) else "missing"

    def remove(self, number: int) -> None:
        """Removes a shard whose videos are all in others."""
        check_owner(self.place, self.token)
        self.place.remove(shard_name(number))

    def _replace(self, number: int, scratch: Place, keep: bool) -> None:
        """Copies the new shard beside the damaged one, and then puts it in its place.

        keep  it has kept flow, which gets its place before it
        """
        name = shard_name(number)
        begun = self.place.begin(name)
        check_owner(self.place, self.token)
        if begun == name:  # there are no renames: what does not belong must go first
            self.place.remove(name)
        try:
            for file in sorted(scratch.files(name), key=lambda file: file == MARKER):
                self.place.write(f"{begun}/{file}", scratch.read(f"{name}/{file}"))
            check_owner(self.place, self.token)
            if keep:
                with Path(scratch.at(flow_name(number))).open("rb") as flow:
                    self.place.write(flow_name(number), flow)
        except BaseException:
            self.place.discard(begun)
            raise
        if begun != name:
            self.place.remove(name)
        self.place.commit(begun, name, MARKER)

    def finish(self) -> str:
        """Writes the index and the ledger anew. Returns what became of the ledger.

        A ledger with relative paths is not written: they would be read in the current folder.
        """
        self.place.remove(INDEX)
        load_table(self.place, self.spec.hash)
        ledger = Ledger.load(self.place, self.spec.hash, self.root)
        if any(is_relative(row.path) for row in ledger):
            return (
                "the ledger is not written, because nothing says in which folder the videos are: "
                "give it by --root, and repair again"
            )
        ledger.save()
        return f"{counted(len(ledger), 'video')} in the ledger"


def _newly_failed(entries: Iterable[Entry], outcomes: Iterable[Outcome]) -> Outcome | None:
    """Returns a video that the damaged shard had stored and that could not be stored again."""
    stored = {entry.id for entry in entries if entry.stored}
    failed = (row for row in outcomes if row.status == QUARANTINED and row.id in stored)
    return next(failed, None)


def parser() -> CommandParser:
    made = CommandParser("repair", __doc__)
    made.add_argument("store", metavar="STORE", help="folder or URL of the store")
    root_help = "folder or URL of the videos (default: where the ledger says)"
    made.add_argument("--root", metavar="DIR", help=root_help)
    limit_help = "time limit for one video, in seconds"
    made.add_argument("--timeout", type=seconds, default=TIMEOUT_S, metavar="S", help=limit_help)
    made.add_argument("--dry-run", action="store_true", help="say what would be done")
    return made


def main(argv: list[str]) -> int:
    """Runs the command; exit status 1 where a shard could not be made anew."""
    arguments = parser().parse_args(argv)
    place = open_place(arguments.store)
    about = read_store_file(place)  # before the lock: it must be a store
    if source := about["made_by"].get(KEPT_FLOW):
        raise StoreError(
            f"{place.url} was made by `mme retarget` from the flow in {source}: remove its damaged "
            "shards and run that command again"
        )
    with StoreLock(place) as lock:
        repair = Repair(place, lock.token, arguments.root, arguments.timeout)
        plan = repair.plan()
        _announce(plan)
        if arguments.dry_run:
            if not (plan.remove or plan.remake or plan.lost):
                print(f"{place.url}: nothing to make anew")
            return _complain(plan.lost)
        if plan.remake:
            check_folder(repair.root)
        remove_leftovers(place.url)
        failed = _carry_out(repair, plan)
        # It may be all that says which videos were in a shard that could not be made anew.
        then = "the ledger stays as it is"
        if not (plan.lost or failed):
            then = repair.finish()
    done = counted(len(plan.remake.keys() - failed.keys()), "shard")
    removed = len(plan.remove.keys() - failed.keys())
    print(f"{place.url}: {done} made anew, {removed} removed; {then}")
    return _complain([*plan.lost, *failed.values()])


def _announce(plan: Plan) -> None:
    for number in plan.remove:
        print(f"{shard_name(number)}: other shards hold all of its videos: remove it")
    for number, entries in plan.remake.items():
        print(f"{shard_name(number)}: make it anew from {counted(len(entries), 'video')}")


def _complain(lost: list[str]) -> int:
    """Prints why shards could not be made again; returns the exit status."""
    for line in lost:
        print(plain(f"mme repair: {line}"))
    return 1 if lost else 0


def _carry_out(repair: Repair, plan: Plan) -> dict[int, str]:
    """Remakes and removes shards. Returns {number: reason} of those that stay as they are."""
    failed: dict[int, str] = {}
    with Isolated(plugin_path()) as isolated:
        for number, made in follow(plan.remake.items(), len(plan.remake), "shards tried"):
            if reason := repair.remake(number, made, isolated):
                failed[number] = reason
    for number, holders in plan.remove.items():
        if lacking := sorted(holders & failed.keys()):
            failed[number] = (
                f"{shard_name(number)} stays as it is: {shard_name(lacking[0])} has its videos, "
                "and could not be made anew"
            )
        else:
            repair.remove(number)
    return failed
