"""Can two drivers of stage 1 write one store?

    python benchmarks/reliability/two_drivers.py [--rounds 30] [--locks 100] [--starters 6]

In each round two `mme flows` with different --videos-per-shard start at the same time on a new
store. One must do the work, and the other must end with one line that names the first, or find
nothing to do if the first has already ended. Then several processes at once try to take each of
--locks dead locks, and exactly one must get it.

Prints how the rounds ended, and the promises. The exit status is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path

from common import SPEC, Marked, Verdict, make_videos, tail, wait

from mme_core.errors import StoreError
from mme_core.io.place import open_place
from mme_core.store import TargetStore
from preprocess.lock import LOCK, StoreLock

SIZES = (1, 2)  # videos in a shard
LIMIT_S = 300.0
VIDEOS = 4


@dataclass
class Rounds:
    """The results of the pairs of drivers."""

    ends: Counter[str] = field(default_factory=Counter)
    statuses: list[str] = field(default_factory=list)  # other pairs than one or two zeros
    words: list[str] = field(default_factory=list)  # refusals in other than one line
    videos: list[str] = field(default_factory=list)  # stores without each video once

    def one(self, marked: Marked, root: Path, top: Path, number: int) -> None:
        """Runs a round in its own folder, which is removed afterwards."""
        store = top / "store"
        logs = [top / f"log-{size}" for size in SIZES]
        words: list[str | Path] = ["-m", "mme_core", "flows", "--serial", "--store", store]
        words += ["--dataset", "folder", "--root", root, *SPEC]
        drivers = [
            marked.start(*words, "--videos-per-shard", str(size), log=log)
            for size, log in zip(SIZES, logs)
        ]
        statuses = [wait(driver, marked, LIMIT_S) for driver in drivers]
        self._judge(f"round {number}", statuses, logs)
        ids = list(TargetStore(store).videos["id"])
        if len(ids) != VIDEOS or len(set(ids)) != VIDEOS:
            self.videos.append(f"round {number}: {sorted(ids)}")
        shutil.rmtree(top)

    def _judge(self, where: str, statuses: list[int | None], logs: list[Path]) -> None:
        if statuses == [0, 0]:
            self.ends["one after the other"] += 1
            return
        if sorted(map(str, statuses)) != ["0", "1"]:
            self.statuses.append(f"{where}: exit statuses {statuses}: {tail(logs[0])}")
            return
        self.ends["one refused"] += 1
        refused = logs[statuses.index(1)].read_text().splitlines()
        if len(refused) != 1 or "is being written by process" not in refused[0]:
            self.words.append(f"{where}: {refused}")


def take_locks(folder: Path, barrier: Barrier, rounds: int, found: list[str]) -> None:
    """Runs in its own process: tries to take the dead lock of each round, and notes success."""
    for number in range(rounds):
        place = open_place(folder / str(number))
        barrier.wait()
        try:
            with StoreLock(place):
                found.append(f"{number} got")
                barrier.wait()
        except StoreError:
            barrier.wait()


def dead_locks(folder: Path, rounds: int, starters: int) -> list[str]:
    """Returns the locks that no process or several processes got, or that left a file."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with StoreLock(open_place(folder / "mine")):
        holder = json.loads((folder / "mine" / LOCK).read_bytes())
    for number in range(rounds):
        content = json.dumps({**holder, "pid": ended.pid, "token": "dead"})
        open_place(folder / str(number)).write(LOCK, content.encode())
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        found, barrier = manager.list(), context.Barrier(starters, timeout=LIMIT_S)
        arguments = (folder, barrier, rounds, found)
        processes = [context.Process(target=take_locks, args=arguments) for _ in range(starters)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        takers = Counter(text.partition(" ")[0] for text in found)
    wrong = [f"lock {n}: {takers[str(n)]} takers" for n in range(rounds) if takers[str(n)] != 1]
    left = [path for number in range(rounds) for path in (folder / str(number)).iterdir()]
    return wrong + [f"{path} is left" for path in left]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--locks", type=int, default=100)
    parser.add_argument("--starters", type=int, default=6)
    arguments = parser.parse_args()
    rounds = Rounds()
    with tempfile.TemporaryDirectory(prefix="two-") as folder:
        top = Path(folder)
        marked = Marked(top / "t")
        root = make_videos(top / "videos", VIDEOS)
        try:
            for number in range(arguments.rounds):
                (top / "round").mkdir()
                rounds.one(marked, root, top / "round", number)
        finally:
            marked.kill_all()
        wrong = dead_locks(top / "locks", arguments.locks, arguments.starters)
    print(f"{arguments.rounds} rounds: {dict(rounds.ends)}")
    print(f"{arguments.locks} dead locks, {arguments.starters} starters each")
    verdict = Verdict()
    verdict.judge("one driver does the work", rounds.statuses)
    verdict.judge("the other is refused in one line", rounds.words)
    verdict.judge("every video is stored once", rounds.videos)
    verdict.judge("every dead lock has one taker, and is given back", wrong)
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
