"""Time limits that a pause does not use up: Ctrl-Z, a suspended job, a laptop that sleeps.

A stopped process cannot see that it is stopped, but a thread of it that wakes twice a second can
see afterwards that it did not.
"""

from __future__ import annotations

import os
import threading
import time

_TICK_S = 0.5
_PAUSE_S = 3.0  # without a tick; a busy machine delays one by less


class _Clock:
    def __init__(self) -> None:
        self._process: int | None = None  # whose thread ticks
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
    """A deadline for `has_passed`, that many seconds of running from now; infinity: never."""
    return _clock.now() + seconds if seconds < float("inf") else seconds


def has_passed(deadline: float) -> bool:
    """Has this process run until then?"""
    return deadline < float("inf") and _clock.now() > deadline
