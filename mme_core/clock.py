"""Time limits that do not count pauses, such as Ctrl-Z, a suspended job or a sleeping laptop.

A process cannot notice that it is stopped. Here a thread wakes twice a second. Afterwards it sees
that it did not wake for a long time.
"""

from __future__ import annotations

import os
import threading
import time

from mme_core.errors import VideoError

_TICK_S = 0.5
_PAUSE_S = 3.0  # a longer time without a tick is a pause; a busy machine delays ticks by less


class _Clock:
    def __init__(self) -> None:
        self._process: int | None = None  # the process that the thread runs in
        self._paused, self._ticked = 0.0, 0.0

    def now(self) -> float:
        if self._process != os.getpid():  # the first time, or after a fork
            self._process, self._ticked = os.getpid(), time.monotonic()
            threading.Thread(target=self._tick, name="clock", daemon=True).start()
        return min(time.monotonic(), self._ticked + _PAUSE_S) - self._paused

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK_S)
            now = time.monotonic()
            if now - self._ticked > _PAUSE_S:
                self._paused += now - self._ticked - _PAUSE_S
            self._ticked = now


_clock = _Clock()


def deadline_after(seconds: float) -> float:
    """Returns a deadline for `has_passed`: `seconds` of running time from now, or infinity."""
    return _clock.now() + seconds if seconds < float("inf") else seconds


def has_passed(deadline: float) -> bool:
    """Whether a deadline of `deadline_after` has passed."""
    return deadline < float("inf") and _clock.now() > deadline


def check_deadline(deadline: float) -> None:
    """Raises VideoError if the deadline has passed."""
    if has_passed(deadline):
        raise VideoError("took longer than the time limit of a video")
