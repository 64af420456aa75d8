"""Does stage 1 lose or change anything when it is killed, also during a write?

    python benchmarks/reliability/kill_flows.py [--videos 40] [--kills 20] [--seed 0]

Runs `mme flows` with Ray on generated videos and sends SIGKILL to its process group, its driver, a
worker, the worker's decoding process, the raylet or the GCS, in turn. Two of three kills wait for a
write in the store (a shard's partial folder, store.json, the ledger, the index or the lock). The
others come at any time. If a kill ends the command, it is run again, and at the end it runs without
kills. If a store is finished before all kills are made, it is compared, and a new one is begun. A
decoding process is killed at most once in a run, because a video that ends it twice is quarantined.

Prints the kills by victim, how many came during a write, how many left a partial file, and the
promises: the shards have the bytes of a run without kills, each video is in the ledger once, and no
process, shared memory or partial file is left. The exit status is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from common import (
    SPEC,
    Marked,
    Verdict,
    contents,
    describe,
    differences,
    kill,
    make_videos,
    run_mme,
    tail,
    wait,
    wait_until,
)

# A worker and a decoding process are not killed in the same run: something ends it in between.
VICTIMS = ("worker", "group", "decoder", "driver", "raylet", "gcs")
ASIDE = (".store.json.", ".ledger", ".index.npz.", ".flows.lock.")
END_S = 180.0  # a run may take to end after a kill
GONE_S = 120.0  # its processes may stay
START_S = 300.0  # until it writes something


def being_written(store: Path) -> list[str]:
    """Returns the names of files and folders that exist only during a write."""
    found = []
    with suppress(FileNotFoundError):
        found += [entry.name for entry in os.scandir(store) if entry.name.startswith(ASIDE)]
        shards = os.scandir(store / "shards")
        found += [entry.name for entry in shards if ".partial-" in entry.name]
    return found


class Storm:
    """The runs of one command, and what the kills interrupted."""

    def __init__(self, top: Path, videos: int, seed: int) -> None:
        self.top, self.store, self.log = top, top / "store", top / "log"
        self.draw = random.Random(seed)
        self.marked = Marked(top / "t")
        root = make_videos(top / "videos", videos)
        self.words = ["flows", "--dataset", "folder", "--root", str(root), *SPEC]
        self.words += ["--videos-per-shard", "2"]
        self.kills: Counter[str] = Counter()
        self.met_write = self.half_done = self.stores = 0
        self.problems: list[str] = []

    def undisturbed(self) -> dict[str, str]:
        """Returns the files of a run without kills."""
        calm = self.top / "calm"
        words = [*self.words, "--store", calm, "--serial"]
        if run_mme(self.marked, *words, log=self.log, limit=3600) != 0:
            sys.exit(f"the undisturbed run failed: {tail(self.log)}")
        return contents(calm / "shards")

    def start(self) -> subprocess.Popen[bytes]:
        words = [*self.words, "--store", str(self.store), "--workers", "2"]
        return self.marked.start("-m", "mme_core", *words, log=self.log)

    def until(self, kills: int, expected: dict[str, str]) -> None:
        """Runs the command until `kills` kills have been made."""
        while self.kills.total() < kills:
            driver = self.start()
            self._disturb(driver, kills)
            if driver.poll() == 0:
                self.compare(expected)
                shutil.rmtree(self.store)

    def _disturb(self, driver: subprocess.Popen[bytes], kills: int) -> None:
        """Kills processes of one run until it ends, or until `kills` kills have been made."""
        spared: set[str] = set()
        while self.kills.total() < kills:
            number = self.kills.total()
            victim = VICTIMS[number % len(VICTIMS)]
            if victim in spared:
                victim = "driver"
            targets = self._await_moment(driver, victim, inside=number % 3 != 2)
            if not targets:
                break
            before = being_written(self.store)
            for target in targets:
                kill(target)
            self.kills[victim] += 1
            self.met_write += bool(before)
            if victim in ("worker", "decoder"):
                spared |= {"worker", "decoder"}
                time.sleep(0.05)
            elif wait(driver, self.marked, END_S) is None:
                self.problems.append(f"kill of {victim}: the run did not end in {END_S:.0f} s")
            self.half_done += bool(set(before) & set(being_written(self.store)))
        if wait(driver, self.marked, 3600) is None:
            self.problems.append("a run did not end")

    def _await_moment(
        self, driver: subprocess.Popen[bytes], victim: str, inside: bool
    ) -> list[psutil.Process]:
        """Waits for the moment. Returns the processes to kill, none if the run has ended."""
        table: list[psutil.Process] = []
        looked = 0.0
        seen: set[str] = set()
        skip, lag = self.draw.randrange(3), self.draw.uniform(0, 0.02)
        not_before = time.monotonic() + (0 if inside else self.draw.uniform(0, 8))

        def ready() -> bool:
            nonlocal table, looked
            now = being_written(self.store)
            if not now and time.monotonic() - looked > 1:  # it takes milliseconds
                table, looked = self.marked.processes(), time.monotonic()
            if not inside:
                return time.monotonic() > not_before and bool(choose(victim, driver, table, now))
            seen.update(now)
            if not now or len(seen) <= skip or not choose(victim, driver, table, now):
                return False
            time.sleep(lag)  # not always at the beginning of the write
            return bool(set(now) & set(being_written(self.store)))

        if not wait_until(ready, driver, START_S):
            return []
        return choose(victim, driver, table, being_written(self.store))

    def compare(self, expected: dict[str, str]) -> None:
        """Compares a finished store with that of the run without kills."""
        self.stores += 1
        changed = differences(contents(self.store / "shards"), expected)
        self.problems += [f"store {self.stores}: shards/{name} differs" for name in changed]
        lines = (self.store / "ledger.jsonl").read_text().splitlines()
        times = Counter(json.loads(line)["id"] for line in lines)
        self.problems += [f"{name}: {count} rows" for name, count in times.items() if count > 1]
        self.problems += [f"{name} is left" for name in being_written(self.store)]
        if run_mme(self.marked, "verify", self.store, log=self.log, limit=600) != 0:
            self.problems.append(f"store {self.stores}: {tail(self.log)}")


def choose(
    victim: str, driver: subprocess.Popen[bytes], table: list[psutil.Process], writing: list[str]
) -> list[psutil.Process]:
    """Returns the processes that `victim` names. Of the workers, prefers the one that writes."""
    if victim in ("group", "driver"):
        own = [psutil.Process(driver.pid)] if driver.poll() is None else []
        group = [each for each in table if victim == "group" and _group(each) == driver.pid]
        return own + group
    found = []
    for process in table:
        with suppress(psutil.NoSuchProcess):
            if victim in ("worker", "decoder") and "preprocess.child" in process.cmdline():
                writes = any(f"-{process.pid}-" in name for name in writing)
                chosen = process if victim == "decoder" else process.parent()
                found.insert(0 if writes else len(found), chosen)
            elif process.name() == {"raylet": "raylet", "gcs": "gcs_server"}.get(victim):
                found.append(process)
    return [process for process in found if process is not None][:1]


def _group(process: psutil.Process) -> int:
    with suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="kf-") as folder:
        storm = Storm(Path(folder), arguments.videos, arguments.seed)
        try:
            expected = storm.undisturbed()
            storm.until(arguments.kills, expected)
            status = wait(storm.start(), storm.marked, 3600)
            if status != 0:
                storm.problems.append(f"the last run ended with {status}: {tail(storm.log)}")
            storm.compare(expected)
            began = time.monotonic()
            left = describe(storm.marked.wait_gone(GONE_S))
            gone = time.monotonic() - began
        finally:
            storm.marked.kill_all()
        memory = storm.marked.take_shared_memory()
    total = storm.kills.total()
    print(f"{total} kills: {', '.join(f'{n} × {name}' for name, n in storm.kills.items())}")
    print(f"{storm.met_write} came during a write, {storm.half_done} left it half done")
    print(
        f"{storm.stores} finished stores of {len(expected)} files; processes gone in {gone:.0f} s"
    )
    verdict = Verdict()
    few = [f"{storm.met_write} of {total}"] if 2 * storm.met_write < total else []
    verdict.judge("half of the kills come during a write", few)
    verdict.judge("every store is that of an undisturbed run", storm.problems)
    verdict.judge("no process is left", left)
    verdict.judge("no shared memory is left", memory)
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
