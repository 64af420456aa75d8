"""Signals that stop a run: it saves at the end of its step and can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPED = 75  # exit status of a run that saved and stopped for a signal (EX_TEMPFAIL: try again)

# SIGTERM and SIGUSR1 come from a scheduler (Slurm), SIGHUP from a terminal that closes, SIGINT
# from Ctrl-C.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)

# A shell ignores SIGHUP for what nohup starts, and SIGINT for a script's `command &`: they stay
# ignored. SIGUSR1 does not: cluster/torchrun-node.sh ignores it only because it would end torchrun,
# and the training processes inherit that.
_STAY_IGNORED = (signal.SIGHUP, signal.SIGINT)


class StoppedError(BaseException):
    """A stop signal arrived inside `StopRequest.at_once`."""


class StopRequest:
    """True once a stop signal has arrived. A second Ctrl-C raises KeyboardInterrupt at once.

    A context manager: it handles the signals inside its block. SIGHUP and SIGINT stay ignored where
    this process ignores them.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._at_once = False

    def __bool__(self) -> bool:
        return bool(self._received)

    def __enter__(self) -> StopRequest:
        self._before = {
            number: signal.signal(number, self._note)
            for number in STOP_SIGNALS
            if number not in _STAY_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside this block a stop signal raises StoppedError: there is nothing left to save."""
        self._at_once = True
        try:
            if self._received:
                raise StoppedError
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._at_once:
            self._at_once = False  # the next signal must not interrupt the way out
            self._received.append(number)
            raise StoppedError
        if number == signal.SIGINT:
            if number in self._received:
                raise KeyboardInterrupt
            with contextlib.suppress(OSError):  # print is not safe inside a signal handler
                os.write(2, b"\nstopping after this step; Ctrl-C again stops without saving\n")
        self._received.append(number)


@contextlib.contextmanager
def interrupt_waits() -> Iterator[None]:
    """Delays Ctrl-C and the other stop signals to the end of the block, which must not be cut off.

    Signals reach the main thread only, so in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in STOP_SIGNALS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for seen in received:
        signal.raise_signal(seen)
