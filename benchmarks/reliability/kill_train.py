"""Does a kill change the result of training, also while a checkpoint is written?

    python benchmarks/reliability/kill_train.py [--steps 80] [--kills 10] [--loader-kills 5]

Runs a tiny pre-training on two processes (torchrun, one loader worker each, a checkpoint every two
steps) and sends SIGKILL to a rank, to torchrun, to the whole process group, to a loader worker or
to the workers' fork server. Every second kill waits for a partly written checkpoint. The others
come at any time after the first step. If a kill ends the command, it is run again, and at the end
it runs without kills. If a run is finished before all kills are made, it is compared, and a new one
is begun.

Prints the kills by victim, how many found a partly written checkpoint, and the promises: weights
and the losses in metrics.jsonl are bitwise those of a run without kills, every killed run ends by
itself, and no process, shared memory or partial file is left. Processes that still run after
--grace seconds are ended and reported. The exit status is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from common import (
    SPEC,
    Marked,
    Verdict,
    describe,
    kill,
    make_videos,
    run_mme,
    tail,
    wait,
    wait_until,
)

RUN_VICTIMS = ("rank", "torchrun", "group")
LOADER_VICTIMS = ("worker", "server")
END_S = 180.0  # a run may take to end after a kill
START_S = 300.0  # until the first step
SPARED_S = 5.0  # a run may go on without its fork server: how long to wait for its end


class Storm:
    """The runs of one command, and what the kills interrupted."""

    def __init__(self, top: Path, steps: int, grace: float, seed: int) -> None:
        self.top, self.steps, self.grace = top, steps, grace
        self.out, self.log = top / "out", top / "log"
        self.draw = random.Random(seed)
        self.marked = Marked(top / "t")
        self.kills: Counter[str] = Counter()
        self.met_write = self.runs = 0
        self.wrong: list[str] = []
        self.endless: list[str] = []
        self.orphans: list[str] = []
        root = make_videos(top / "videos", 8)
        words = ["flows", "--dataset", "folder", "--root", root, "--store", top / "store"]
        if run_mme(self.marked, *words, "--serial", *SPEC, log=self.log, limit=600) != 0:
            sys.exit(f"mme flows failed: {tail(self.log)}")

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        words += ["-m", "mme_core", "pretrain", "--config", "tiny.yaml"]
        words += [f"store={self.top / 'store'}", f"out={out}", f"optim.steps={self.steps}"]
        words += ["data.workers=1", "checkpoint.every=2", "device=cpu", "target.length=3"]
        return self.marked.start(*words, log=self.log)

    def halves(self) -> list[Path]:
        """Returns partly written checkpoints."""
        return list((self.out / "checkpoints").glob("*.tmp"))

    def strike(self, victims: list[str], expected: tuple[dict, dict]) -> None:
        """Makes these kills, in as many runs as needed."""
        waiting = list(victims)
        while waiting:
            launcher = self.start(self.out)
            while waiting and self._kill(launcher, waiting[0], inside=len(waiting) % 2 == 0):
                waiting.pop(0)
            if launcher.poll() is None:
                self._finish(launcher, "a run that went on")
            if launcher.poll() == 0:
                self.compare(expected)
                shutil.rmtree(self.out)

    def _kill(self, launcher: subprocess.Popen[bytes], victim: str, inside: bool) -> bool:
        """Makes one kill. Returns False if the run ended before."""
        if launcher.poll() is not None or not wait_until(self._steps_since(), launcher, START_S):
            self._finish(launcher, "no kill")
            return False
        table = self.marked.processes()
        skip, seen = self.draw.randrange(2), set()
        not_before = time.monotonic() + self.draw.uniform(0, 1)

        def ready() -> bool:
            if not inside:
                return time.monotonic() > not_before
            seen.update(path.name for path in self.halves())
            return len(seen) > skip and bool(self.halves())

        if not wait_until(ready, launcher):
            self._finish(launcher, "no kill")
            return False
        targets = self._choose(victim, launcher, table)
        met = bool(self.halves())
        for target in targets:
            kill(target)
        if not targets:
            return False
        self.kills[victim] += 1
        self.met_write += met
        if victim == "server":  # the workers that it has forked already go on
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(SPARED_S)
        if victim != "server" or launcher.poll() is not None:
            self._finish(launcher, f"kill of {victim}")
        return True

    def _steps_since(self) -> Callable[[], bool]:
        """Returns a function that says whether this run has logged a step."""
        metrics = self.out / "metrics.jsonl"
        began = time.time()
        return lambda: metrics.exists() and metrics.stat().st_mtime > began

    def _choose(
        self, victim: str, launcher: subprocess.Popen[bytes], table: list[psutil.Process]
    ) -> list[psutil.Process]:
        ranks, forked = [], []
        for process in table:
            with suppress(psutil.NoSuchProcess):
                words = " ".join(process.cmdline())
                if process.ppid() == launcher.pid and "mme_core" in words:
                    ranks.append(process)
                elif "multiprocessing.forkserver" in words:
                    forked.append(process)
        pids = {process.pid for process in forked}
        servers = [each for each in forked if _parent(each) not in pids]
        workers = [each for each in forked if _parent(each) in pids]
        named = {"rank": ranks, "worker": workers, "server": servers}
        if victim in named:
            return self.draw.sample(named[victim], min(1, len(named[victim])))
        own = [psutil.Process(launcher.pid)]
        return own + (ranks if victim == "group" else [])

    def _finish(self, launcher: subprocess.Popen[bytes], after: str) -> None:
        """Waits until a run and all its processes have ended."""
        if wait(launcher, self.marked, END_S) is None:
            self.endless.append(f"{after}: the run did not end in {END_S:.0f} s")
        if left := self.marked.wait_gone(self.grace):
            text = "; ".join(describe(left))
            self.orphans.append(f"{after}: {len(left)} left after {self.grace:.0f} s: {text}")
            self.marked.kill_all()

    def read(self, out: Path) -> tuple[dict, dict]:
        """Returns (weights, losses by step) of a finished run. Notes steps logged twice."""
        import torch

        last = max((out / "checkpoints").glob("step-*.pt"))
        weights = torch.load(last, weights_only=True)["model"]
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows if "loss" in row]
        if steps != list(range(1, self.steps + 1)):
            self.wrong.append(f"run {self.runs}: the logged steps are not 1 to {self.steps}")
        return weights, {row["step"]: row["loss"] for row in rows if "loss" in row}

    def compare(self, expected: tuple[dict, dict]) -> None:
        """Compares a finished run with the run without kills."""
        import torch

        self.runs += 1
        weights, losses = self.read(self.out)
        wanted, wanted_losses = expected
        changed = [name for name in wanted if not torch.equal(weights[name], wanted[name])]
        self.wrong += [f"run {self.runs}: weights of {name} differ" for name in changed]
        steps = [step for step, loss in wanted_losses.items() if losses.get(step) != loss]
        self.wrong += [f"run {self.runs}: loss of step {step} differs" for step in steps]
        self.wrong += [f"{path.name} is left" for path in self.halves()]


def _parent(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return process.ppid()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=80, help="of a run")
    parser.add_argument("--kills", type=int, default=10, help="of a rank, torchrun or the group")
    parser.add_argument("--loader-kills", type=int, default=5, help="of a worker or its server")
    parser.add_argument("--grace", type=float, default=20.0, help="seconds to end in (20)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    victims = [RUN_VICTIMS[n % len(RUN_VICTIMS)] for n in range(arguments.kills)]
    victims += [LOADER_VICTIMS[n % len(LOADER_VICTIMS)] for n in range(arguments.loader_kills)]
    random.Random(arguments.seed).shuffle(victims)
    with tempfile.TemporaryDirectory(prefix="kt-") as folder:
        storm = Storm(Path(folder), arguments.steps, arguments.grace, arguments.seed)
        try:
            calm = Path(folder) / "calm"
            if wait(storm.start(calm), storm.marked, 3600) != 0:
                sys.exit(f"the undisturbed run failed: {tail(storm.log, 30)}")
            expected = storm.read(calm)
            storm.strike(victims, expected)
            status = wait(storm.start(storm.out), storm.marked, 3600)
            if status != 0:
                sys.exit(f"the last run ended with {status}: {tail(storm.log, 30)}")
            storm.compare(expected)
            left = describe(storm.marked.wait_gone(arguments.grace))
        finally:
            storm.marked.kill_all()
        memory = storm.marked.take_shared_memory()
    total = storm.kills.total()
    print(f"{total} kills: {', '.join(f'{n} × {name}' for name, n in storm.kills.items())}")
    print(f"{storm.met_write} met a half-written checkpoint; {storm.runs} finished runs")
    verdict = Verdict()
    verdict.judge("weights and losses are those of an undisturbed run", storm.wrong)
    verdict.judge("every killed run ends by itself", storm.endless)
    verdict.judge("no process is left", storm.orphans + left)
    verdict.judge("no shared memory is left", memory)
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
