"""One driver a store at a time.

The lock is a file in the store that says who holds it, and that its holder renews: the heartbeat. A
driver that was killed leaves it behind. Whoever takes it over creates a file named after the dead
holder's token, which only one can. So the holder is the last of a chain:

    flows.lock          token A, dead
    flows.lock.A        token B, dead
    flows.lock.B        token C, at work
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from mme_core.errors import StoreError
from mme_core.io.place import Place
from mme_core.store.layout import LOCK

BEAT_S = 20.0
DEAD_S = 120.0  # without a beat; a slow disk may miss some
LOOK_S = 1.0  # between two looks at another machine's heartbeat


class StoreLock:
    """`with StoreLock(place):` raises StoreError when another driver is at work on the store.

    token  names the lock for `check_owner`
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.token = uuid.uuid4().hex
        self._holder = {**_this_process(), "host": socket.gethostname(), "token": self.token}
        self._released = threading.Event()
        self._name = LOCK

    def __enter__(self) -> StoreLock:
        while not self._take():
            pass
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
        chain = _chain(self._place)
        if chain and chain[-1][1]["token"] == self.token:
            for name, _ in chain:  # the first one frees the store
                self._place.remove(name)

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "beat": time.time()}).encode()

    def _take(self) -> bool:
        """Takes the lock where it is free; False where it has changed while this looked at it."""
        chain = _chain(self._place)
        if chain:
            name, holder = chain[-1]
            if _is_alive(self._place, name, holder):
                raise StoreError(
                    f"{self._place.url} is being written by process {holder['pid']} on "
                    f"{holder['host']}; wait for it, or remove {self._place.at(LOCK)} if that run "
                    "is dead"
                )
            self._name = f"{LOCK}.{holder['token']}"
        else:
            self._name = LOCK
        if not self._place.create(self._name, self._content()):
            return False
        if self.is_mine():
            return True
        self._place.remove(self._name)  # the chain that it belonged to was released meanwhile
        return False

    def is_mine(self) -> bool:
        chain = _chain(self._place)
        return bool(chain) and chain[-1][1]["token"] == self.token

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            with contextlib.suppress(OSError, StoreError):  # the next beat may reach the disk
                if not self.is_mine():
                    return  # `check_owner` ends the run
                self._place.write(self._name, self._content())


def check_owner(place: Place, token: str) -> None:
    """Raises StoreError when the store's lock is no longer the one with this token."""
    chain = _chain(place)
    if not chain or chain[-1][1]["token"] != token:
        raise StoreError(
            f"{place.url}: this run has lost its lock: {LOCK} was removed, or another run took it "
            f"over after {DEAD_S:.0f} s without a heartbeat; run again when no other is at work"
        )


def _chain(place: Place) -> list[tuple[str, dict[str, Any]]]:
    """(name, holder) of the lock's files; the last one counts."""
    chain: list[tuple[str, dict[str, Any]]] = []
    name = LOCK
    while (holder := _read(place, name)) is not None:
        chain.append((name, holder))
        name = f"{LOCK}.{holder['token']}"
    return chain


def _read(place: Place, name: str) -> dict[str, Any] | None:
    try:
        holder = json.loads(place.read(name))
    except FileNotFoundError:
        return None
    except ValueError:  # a disk that lost its power
        holder = {}
    return {"token": "unreadable", "pid": "?", "host": "an unknown machine", **holder}


def _this_process() -> dict[str, Any]:
    """What tells this process from all others: boot and PID namespace; then number and start.

    Host names do not: containers share the name of their machine.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        kernel = f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        kernel = f"{uuid.getnode()} {psutil.boot_time():.0f}"
    return {"kernel": kernel, "pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_alive(place: Place, name: str, holder: dict[str, Any]) -> bool:
    """Does the driver that wrote this lock still run?

    Of a process elsewhere only its heartbeat is seen, and clocks differ: so it is watched.
    """
    if holder.get("kernel") != _this_process()["kernel"]:
        print(
            f"{place.at(name)} is of process {holder['pid']} on {holder['host']}; waiting up to "
            f"{DEAD_S:.0f} s for its heartbeat",
            file=sys.stderr,
        )
        return _beats(place, name, holder)
    try:
        started = psutil.Process(holder["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(started - holder["started"]) < 1


def _beats(place: Place, name: str, holder: dict[str, Any]) -> bool:
    """Watches a heartbeat until it changes, or for DEAD_S; a lock that was given back is dead."""
    end = time.monotonic() + DEAD_S
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        now = _read(place, name)
        if now is None:
            return False
        if now != holder:
            return True
    return False
