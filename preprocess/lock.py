"""The lock of a store: only one driver may write to it at a time.

The lock is a file in the store. It names its holder, and the holder rewrites it regularly (the
heartbeat). A driver that was killed leaves its lock behind. A new driver takes over by creating a
file named after the dead holder's token; only one driver can create that file. So the files form a
chain, and its last file names the holder:

    flows.lock          token A, dead
    flows.lock.A        token B, dead
    flows.lock.B        token C, running
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
from typing import Any

import psutil

from mme_core.errors import StoreError
from mme_core.io.place import Place
from mme_core.store.layout import LOCK

BEAT_S = 20.0
DEAD_S = 120.0  # a holder without a heartbeat for so long is dead; a slow disk may delay a few
LOOK_S = 1.0  # between two reads of another machine's heartbeat


class StoreLock:
    """`with StoreLock(place):` raises StoreError if another driver is writing to the store.

    token  identifies this lock; see `check_owner`
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

    def __exit__(self, *_error: object) -> None:
        self._released.set()
        self._thread.join()
        chain = _chain(self._place)
        if chain and chain[-1][1]["token"] == self.token:
            for name, _ in chain:  # without the first file the store is free
                self._place.remove(name)

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "beat": time.time()}).encode()

    def _take(self) -> bool:
        """Takes the lock if it is free. False: the lock changed meanwhile, so try again."""
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
        self._place.remove(self._name)  # its chain was released meanwhile
        return False

    def is_mine(self) -> bool:
        """Whether this driver still holds the lock."""
        chain = _chain(self._place)
        return bool(chain) and chain[-1][1]["token"] == self.token

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            with contextlib.suppress(OSError, StoreError):  # the next heartbeat may succeed
                if not self.is_mine():
                    return  # `check_owner` will stop the run
                self._place.write(self._name, self._content())


def check_owner(place: Place, token: str) -> None:
    """Raises StoreError if the holder of the store's lock does not have this token."""
    chain = _chain(place)
    if not chain or chain[-1][1]["token"] != token:
        raise StoreError(
            f"{place.url}: this run has lost its lock: {LOCK} was removed, or another run took it "
            f"over after {DEAD_S:.0f} s without a heartbeat; run again when no other run is active"
        )


def _chain(place: Place) -> list[tuple[str, dict[str, Any]]]:
    """(name, holder) of each file of the lock, in the order of the chain."""
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
    except ValueError:
        holder = None
    if not isinstance(holder, dict):  # a power cut may leave a damaged file
        holder = {}
    # A file cannot be its own successor, so the token of a damaged file comes from its name.
    token = f"{name.removeprefix(LOCK)}-unreadable"[1:]
    return {"token": token, "pid": "?", "host": "an unknown machine", **holder}


def _this_process() -> dict[str, Any]:
    """Identifies this process: boot and PID namespace of its system, its number, its start time.

    A host name is not enough, because containers may share the name of their machine. The start
    time is counted from the boot, because the clock may be set while the process runs.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        kernel = f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        kernel = f"{uuid.getnode()} {psutil.boot_time():.0f}"
    return {"kernel": kernel, "pid": os.getpid(), "since_boot": _since_boot(os.getpid())}


def _since_boot(pid: int) -> float:
    """Seconds from the boot to the start of a process. Raises psutil.NoSuchProcess."""
    boot = psutil.boot_time()  # first: older versions of psutil remember it for `create_time`
    return psutil.Process(pid).create_time() - boot


def _is_alive(place: Place, name: str, holder: dict[str, Any]) -> bool:
    """Whether the driver that wrote this lock still runs.

    A process on another machine is only known by its heartbeat. Clocks differ between machines, so
    the heartbeat is watched until it changes.
    """
    if holder.get("kernel") != _this_process()["kernel"] or "since_boot" not in holder:
        print(
            f"{place.at(name)} belongs to process {holder['pid']} on {holder['host']}; waiting up "
            f"to {DEAD_S:.0f} s for its heartbeat",
            file=sys.stderr,
        )
        return _beats(place, name, holder)
    try:
        since_boot = _since_boot(holder["pid"])
    except psutil.NoSuchProcess:
        return False
    return abs(since_boot - holder["since_boot"]) < 1


def _beats(place: Place, name: str, holder: dict[str, Any]) -> bool:
    """Whether the heartbeat changes within DEAD_S. False also if the lock is released meanwhile."""
    end = time.monotonic() + DEAD_S
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        now = _read(place, name)
        if now is None:
            return False
        if now != holder:
            return True
    return False
