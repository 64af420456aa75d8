"""One driver a store at a time.

The lock is a file in the store that says who holds it. A driver that was killed leaves it behind:
on this machine that is seen from the process (its number and start); on another one from the
heartbeat, which its holder renews.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

import psutil

from mme_core.errors import StoreError
from mme_core.io.place import Place
from mme_core.store.layout import LOCK

BEAT_S = 20.0
DEAD_S = 300.0  # without a beat; allows for clocks that differ and a slow disk


class StoreLock:
    """`with StoreLock(place):` raises StoreError when another driver is at work on the store."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "token": uuid.uuid4().hex,
        }
        self._released = threading.Event()

    def __enter__(self) -> StoreLock:
        while not self._place.create(LOCK, self._content()):
            holder = _read(self._place)
            if holder is not None and is_alive(holder):
                raise StoreError(
                    f"{self._place.url} is being written by process {holder['pid']} on "
                    f"{holder['host']}; wait for it. If that run is dead, it is noticed within "
                    f"{DEAD_S:.0f} s, or remove {self._place.at(LOCK)}"
                )
            if _read(self._place) == holder:  # or somebody else was faster
                self._place.remove(LOCK)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._released.set()
        self._thread.join()
        self._place.remove(LOCK)

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "beat": time.time()}).encode()

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            with contextlib.suppress(OSError, StoreError):  # the next beat may reach the disk
                self._place.write(LOCK, self._content())


def _read(place: Place) -> dict[str, Any] | None:
    try:
        return json.loads(place.read(LOCK))
    except (FileNotFoundError, ValueError):
        return None


def is_alive(holder: dict[str, Any]) -> bool:
    """Does the driver that wrote this lock still run?"""
    if holder["host"] != socket.gethostname():
        return time.time() - holder["beat"] < DEAD_S
    try:
        started = psutil.Process(holder["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(started - holder["started"]) < 1
