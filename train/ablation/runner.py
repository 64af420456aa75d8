"""Runs the cells of a grid: as processes of the public commands, several at once.

A process for each cell costs a few seconds of start-up, which other cells hide where several run at
once. In return a cell that runs out of memory or crashes takes no other one with it, and everybody
can run any cell again by the command in its log.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mme_core.errors import UsageError
from mme_core.processes import child_environment
from train.ablation.cells import Cell, Chain
from train.engine.signals import StopRequest

DONE, LOG = "cell.json", "cell.log"
_WATCH_S = 0.2


@dataclass(frozen=True)
class Slot:
    """Where one cell runs at a time: a GPU's name, or "" for the CPU; threads: of the cell."""

    gpu: str
    threads: int


class Runner:
    """Runs chains of cells on the slots; `say` prints a line."""

    def __init__(self, slots: Sequence[Slot], say: Callable[[str], None]) -> None:
        self.slots, self.say = slots, say
        self.failed: list[Cell] = []
        self._free: queue.Queue[Slot] = queue.Queue()
        for slot in slots:
            self._free.put(slot)
        self._running: set[subprocess.Popen] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()

    def run(self, chains: Sequence[Chain], stop: StopRequest) -> bool:
        """Runs all chains; False where a signal ended them before.

        A cell that failed ends its chain and no other; `failed` lists it.
        """
        self._left = sum(not is_done(cell) for chain in chains for cell in chain.cells)
        with ThreadPoolExecutor(len(self.slots)) as pool:
            waiting = [pool.submit(self._run_chain, chain) for chain in chains]
            try:
                while futures.wait(waiting, _WATCH_S).not_done:
                    if stop and not self._ended.is_set():
                        self._end(signal.SIGTERM)  # they save
            except KeyboardInterrupt:  # the second
                self._end(signal.SIGKILL)
                raise
        for future in waiting:
            future.result()
        return not self._ended.is_set()

    def _run_chain(self, chain: Chain) -> None:
        slot = self._free.get()
        try:
            for cell in chain.cells:
                if self._ended.is_set():
                    return
                if not is_done(cell) and not self._run_cell(cell, slot):
                    return
        finally:
            self._free.put(slot)

    def _run_cell(self, cell: Cell, slot: Slot) -> bool:
        cell.folder.mkdir(parents=True, exist_ok=True)
        environment = child_environment() | {"OMP_NUM_THREADS": str(slot.threads)}
        environment |= {"CUDA_VISIBLE_DEVICES": slot.gpu}
        with (cell.folder / LOG).open("a") as log:
            log.write(f"mme {shlex.join(cell.words)}\n")
            log.flush()
            with self._lock:
                if self._ended.is_set():
                    return False
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "mme_core", *cell.words],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    process_group=0,  # a Ctrl-C reaches it through this process alone
                )
                self._running.add(process)
            status = process.wait()
        with self._lock:
            self._running.discard(process)
            if status == 0:
                _mark_done(cell)
                self._left -= 1
                self.say(f"done, {self._left} left: {cell.folder}")
            elif not self._ended.is_set():
                self.failed.append(cell)
                self.say(f"failed with status {status}: {cell.folder / LOG}: {_last_line(cell)}")
        return status == 0

    def _end(self, number: signal.Signals) -> None:
        """Sends a signal to the running cells, and starts no more."""
        with self._lock:
            self._ended.set()
            for process in self._running:
                with suppress(ProcessLookupError):
                    process.send_signal(number)


def slots(device: str, jobs: int, gpus: int, cores: int) -> list[Slot]:
    """`jobs` slots on each GPU, or on the CPU, whose cores they share.

    gpus  number of GPUs that torch sees; 0 for device="cpu"
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    if device == "cuda" and not gpus:
        raise UsageError("device=cuda: torch sees no GPU here")
    names = names[:gpus] or [""]
    threads = max(cores // (jobs * len(names)), 1)
    return [Slot(name, threads) for _ in range(jobs) for name in names]


def is_done(cell: Cell) -> bool:
    """Whether the cell has finished before.

    Raises UsageError where its folder holds a finished cell of another grid.
    """
    path = cell.folder / DONE
    if not path.exists():
        return False
    saved = json.loads(path.read_text())
    words = [*saved["words"], *saved.get("pretrain", cell.pretrain)]  # older grids have none
    wanted = [*cell.words, *cell.pretrain]
    changed = sorted(set(words) ^ set(wanted))
    if not changed and _recipes(words) == _recipes(wanted):  # the order of keys says nothing
        return True
    raise UsageError(
        f"{cell.folder} holds the result of another command "
        f"({', '.join(changed[:3]) or 'its recipes in another order'}): choose "
        f"another out=…, or remove {cell.folder.parent}"
    )


def _recipes(words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith("--config=")]


def _mark_done(cell: Cell) -> None:
    aside = cell.folder / f".{DONE}"
    aside.write_text(json.dumps({"words": cell.words, "pretrain": cell.pretrain}))
    aside.replace(cell.folder / DONE)


def _last_line(cell: Cell) -> str:
    lines = Path(cell.folder / LOG).read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")
