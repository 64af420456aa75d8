"""Shared by the scripts of this folder: marked processes, what they leave, and the verdict."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
MARK = "MME_STORM"  # environment variable that every process of a storm inherits
SHARED_MEMORY = Path("/dev/shm")
TRACKER_S = 3.0  # that a resource tracker has to clean up

# Targets of 4 × 5 patches: a demo video takes a fraction of a second.
SPEC = (
    "spec.stride=2",
    "spec.length=3",
    "spec.short_side=64",
    "spec.long_side=80",
    "spec.flow=dis-ultrafast",
)


class Marked:
    """Processes with a mark in their environment, and what they leave behind.

    scratch  folder for their temporary files. Its path must be short, for Ray's sockets
    """

    def __init__(self, scratch: Path) -> None:
        self.mark = uuid.uuid4().hex
        scratch.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ,
            MARK: self.mark,
            "SPT_NOENV": "1",  # Ray's new process titles would overwrite the environment
            "TMPDIR": str(scratch),
            "RAY_TMPDIR": str(scratch),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # the default is a minute
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self._before = set(_shared_memory())
        self._used: set[str] = set()

    def start(self, *words: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts Python with these words, in its own process group, with its output in `log`."""
        command = [sys.executable, *map(str, words)]
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Returns the marked processes that run now. Notes the shared memory that they use."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            if int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if needle in (folder / "environ").read_bytes():
                    found.append(psutil.Process(int(folder.name)))
                    self._used |= _mapped(folder)
        return found

    def wait_gone(self, seconds: float) -> list[psutil.Process]:
        """Waits until none is left, or for `seconds`. Returns those that are left."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def kill_all(self) -> None:
        """Kills all marked processes, also those that start in the meantime.

        Python's resource trackers are last: they remove the semaphores of the killed processes.
        """
        if left := self.processes():
            for process in left:
                if not _tracks(process):
                    kill(process)
            self.wait_gone(TRACKER_S)
        while left := self.processes():
            for process in left:
                kill(process)
            time.sleep(0.1)

    def take_shared_memory(self) -> list[str]:
        """Removes the files that these processes left in /dev/shm. Returns their names."""
        left = sorted((set(_shared_memory()) - self._before) & self._used)
        for name in left:
            (SHARED_MEMORY / name).unlink(missing_ok=True)
        return left


@dataclass
class Verdict:
    """Judges the promises of a script, and prints each result at once."""

    broken: list[str] = field(default_factory=list)

    def judge(self, promise: str, failures: Iterable[object]) -> None:
        """Prints a promise as kept if there is no failure."""
        found = [str(failure) for failure in failures]
        print(f"{'BROKEN' if found else 'kept  '}  {promise}")
        for text in found[:8]:
            print(f"        {text}")
        if len(found) > 8:
            print(f"        and {len(found) - 8} more")
        self.broken += [promise] if found else []

    def status(self) -> int:
        """Exit status: 1 if a promise is broken."""
        return 1 if self.broken else 0


def kill(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    """Sends SIGKILL. Does nothing if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.kill()


def _tracks(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("resource_tracker" in word for word in process.cmdline())
    return False


def describe(processes: Iterable[psutil.Process]) -> list[str]:
    """Returns a line for each process: its id, resident memory and the start of its command."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory = process.memory_info().rss / 1e6
            command = " ".join(process.cmdline())[:90]
            lines.append(f"process {process.pid}, {memory:.0f} MB: {command}")
    return lines


def run_mme(marked: Marked, *words: str | Path, log: Path, limit: float) -> int | None:
    """Returns the exit status of `mme WORDS`, or None if it took longer than `limit` seconds."""
    process = marked.start("-m", "mme_core", *words, log=log)
    return wait(process, marked, limit)


def wait(process: subprocess.Popen[bytes], marked: Marked, limit: float) -> int | None:
    """Its exit status; None, and everything marked is ended, after `limit` seconds."""
    deadline = time.monotonic() + limit
    while process.poll() is None:
        if time.monotonic() > deadline:
            marked.kill_all()
            process.wait()
            return None
        time.sleep(0.02)
    return process.returncode


def make_videos(folder: Path, count: int) -> Path:
    """`count` videos of the demo set, as they are for every seed 0."""
    from mme_core.datasets.demo import make_demo

    make_demo(folder, count, 0, lambda done, total: None)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its name relative to it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Names that only one side has, or whose content differs."""
    names = sorted(found.keys() | expected.keys())
    return [name for name in names if found.get(name) != expected.get(name)]


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], limit: float = 120.0
) -> bool:
    """Polls `ready` every half millisecond; False where the process ends, or the limit passes."""
    deadline = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(0.0005)
    return False


def tail(log: Path, lines: int = 5) -> str:
    """The end of a log, for messages."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _shared_memory() -> list[str]:
    return [path.name for path in SHARED_MEMORY.iterdir()] if SHARED_MEMORY.is_dir() else []


def _mapped(folder: Path) -> set[str]:
    """Names in /dev/shm that a process has mapped and that still exist."""
    maps = (folder / "maps").read_text(errors="replace")
    return set(re.findall(rf"{SHARED_MEMORY}/(\S+)$", maps, re.MULTILINE))
