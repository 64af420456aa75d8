"""Writes shards in a child process, so that no video can crash the worker.

A video that crashes the child is tried once more. If it crashes again, or if it hangs and the child
has to be killed, it is quarantined. The shard is then written again without that video.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mme_core.clock import deadline_after, has_passed
from mme_core.errors import MMEError
from mme_core.processes import child_environment
from preprocess.jobs import ERRORS, Outcome, ShardJob

# The child stops a video at its time limit by itself. It is killed after GRACE times that limit and
# GRACE_S seconds more, since it must hang by then.
GRACE = 1.5
GRACE_S = 15.0
_LOOK_S = 1.0  # between two checks of the clock
_GPUS = "CUDA_VISIBLE_DEVICES"
START_S = 300.0  # time limit of a start; imports are slow on a shared disk


@dataclass(frozen=True)
class ShardResult:
    """The number of a finished shard, and the outcomes of its videos."""

    number: int
    outcomes: tuple[Outcome, ...]


class _LostError(Exception):
    """The child died or was killed. `video` is the id of its current video; "": it had none."""

    def __init__(self, video: str, reason: str) -> None:
        super().__init__(reason)
        self.video = video


class Isolated:
    """Writes shards in a child process, which ends with the `with` block.

    plugins  folders with flow plug-ins, in addition to the import path of this process
    """

    def __init__(self, plugins: Sequence[str]) -> None:
        self._plugins = plugins
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def write(self, job: ShardJob, report: Callable[[Outcome], None]) -> ShardResult:
        """Writes one shard. `report` gets each outcome. Raises MMEError if the run must stop."""
        if self._child is not None and self._child.gpus != os.environ.get(_GPUS):
            self.stop()  # Ray has assigned other GPUs to this worker
        suspects: dict[str, int] = {}
        while True:
            if self._child is None:
                self._child = _Child(self._plugins)
            try:
                return ShardResult(job.number, self._child.write(job, report))
            except _LostError as lost:
                self.stop()
                suspects[lost.video] = suspects.get(lost.video, 0) + 1
                if suspects[lost.video] < 2 and not isinstance(lost, _HungError):
                    continue
                if not lost.video:
                    raise MMEError(f"the worker's process died twice: {lost}") from lost
                job = dataclasses.replace(job, poison={**job.poison, lost.video: str(lost)})
            except BaseException:
                self.stop()  # else the child would continue to write
                raise


class _HungError(_LostError):
    """The child hung and was killed."""


class _Child:
    """A running child process and its socket."""

    def __init__(self, plugins: Sequence[str]) -> None:
        self.gpus = os.environ.get(_GPUS)
        mine, theirs = socket.socketpair()
        command = [sys.executable, "-m", "preprocess.child", str(theirs.fileno()), str(os.getpid())]
        environment = child_environment(*plugins)
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        self._socket, self._unread, self._arrivals = mine, b"", select.poll()
        self._arrivals.register(mine, select.POLLIN)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def write(self, job: ShardJob, report: Callable[[Outcome], None]) -> tuple[Outcome, ...]:
        limit = job.timeout * GRACE + GRACE_S
        outcomes: list[Outcome] = []
        video = ""
        self._send(job.to_json(), video)
        while True:
            message = self._receive(limit if video else max(START_S, limit), video, job.timeout)
            match message:
                case {"begin": video}:
                    pass
                case {"outcome": values}:
                    video = ""
                    outcomes.append(Outcome(**values))
                    report(outcomes[-1])
                case {"error": [kind, text]}:
                    raise ERRORS[kind](text)
                case {"done": _}:
                    return tuple(outcomes)

    def _send(self, text: str, video: str) -> None:
        try:
            self._socket.sendall(f"{text}\n".encode())
        except OSError:
            raise self._died(video) from None

    def _receive(self, limit: float, video: str, timeout: float) -> dict[str, Any]:
        try:
            line = self._read_line(deadline_after(limit))
        except TimeoutError:
            reason = f"took longer than {timeout:g} s and could not be interrupted"
            raise _HungError(video, reason) from None
        except OSError:
            line = b""
        if not line:
            raise self._died(video)
        return json.loads(line)

    def _read_line(self, deadline: float) -> bytes:
        """The next message; empty if the child has ended. Raises TimeoutError at the deadline."""
        while b"\n" not in self._unread:
            if has_passed(deadline):
                raise TimeoutError
            if self._arrivals.poll(1000 * _LOOK_S):
                data = self._socket.recv(1 << 16)
                if not data:
                    return b""
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _died(self, video: str) -> _LostError:
        code = self._process.wait()
        how = f"with exit status {code}"
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
            how += " (out of memory?)" if -code == signal.SIGKILL else ""
        return _LostError(video, f"the decoding process ended {how}")
