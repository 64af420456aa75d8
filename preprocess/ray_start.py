"""Prepares the start of Ray: safe settings, and checks with clear errors.

When we start Ray on one machine, it listens only on the loopback address, needs a token that only
its user can read, and exports no metrics. Its files are in a private folder that is removed at the
end of the run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mme_core.errors import UsageError

_LONGEST_BASE = 28  # bytes; a socket's path may have 107, and Ray's own names need the others
_SPACE = 200 * 2**20  # bytes of free disk space, for logs
STORE_SPACE = 128 * 2**20  # bytes of Ray's object store, which carries only small rows
# Measured numbers of threads: of Ray itself, and of each worker with its decoder.
_THREADS, _THREADS_A_WORKER = 250, 50
_PATIENCE_S = 5.0  # a cluster that has just been started may not answer sooner
_ANSWER_S = 10.0  # time limit of one connection

# Ray reads these variables when it is imported or started. Variables that the user set stay.
_EVERYWHERE = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Else Ray would upload the current folder, with all its data, under `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
_ALONE = {
    # With 0, Ray uses the loopback address on every system.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray would end a worker, whose child has the memory, and begin the shard again without end.
    # The kernel ends the child, and `Isolated` finds the video.
    "RAY_memory_monitor_refresh_ms": "0",
    # Processes start slowly on a busy machine or from a slow disk.
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "300",
}


@contextlib.contextmanager
def prepared(workers: int | None, address: str | None) -> Iterator[dict[str, Any]]:
    """Sets the environment of Ray until the end of the block; yields arguments for `ray.init`.

    workers  number of workers; None: the number of cores
    address  address of a cluster; None: Ray is to start on this machine

    Enter it before Ray is imported. Raises UsageError if no cluster answers at the address, or if
    this machine lacks disk space or processes for Ray.
    """
    if address is not None:
        check_address(address)
        with _environment(_EVERYWHERE):
            yield {"address": address}
        return
    check_processes(workers or 1)
    base = short_folder()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=base))
    options = {
        "address": "local",
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": STORE_SPACE,
        "_temp_dir": str(folder / "r"),  # Ray makes this folder readable for all users
    }
    if not has_room(Path("/dev/shm"), 2 * STORE_SPACE):
        options["_plasma_directory"] = str(folder)
    try:
        with _environment({**_EVERYWHERE, **_ALONE, **_token(folder)}):
            yield options
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _token(folder: Path) -> dict[str, str]:
    """Variables for a new token in a private file; empty if the user has set RAY_AUTH_MODE."""
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(_secret())
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


@functools.cache
def _secret() -> str:
    """The token, one for each process, because Ray reads it only once."""
    return secrets.token_hex(32)


# this machine


def short_folder() -> Path:
    """The folder for Ray's files: the first suitable one of RAY_TMPDIR, TMPDIR and usual places."""
    named = (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"))
    tried = [*filter(None, named), "/tmp", "/var/tmp", "/dev/shm"]
    for name in tried:
        if len(os.fsencode(name)) <= _LONGEST_BASE and has_room(Path(name), _SPACE):
            return Path(name).absolute()
    raise UsageError(
        f"Ray cannot start: it needs a folder that can be written, with {_SPACE >> 20} MB free and "
        f"a path of at most {_LONGEST_BASE} bytes; tried {', '.join(tried)}: set "
        "RAY_TMPDIR=/short/path, or use --serial"
    )


def has_room(folder: Path, size: int) -> bool:
    """Whether the folder can be written and has `size` bytes free."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return shutil.disk_usage(folder).free >= size
    except OSError:
        return False


def check_processes(workers: int) -> None:
    """Raises UsageError if the user may not start as many threads as Ray needs."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return
    needed = _THREADS + _THREADS_A_WORKER * workers
    used = _threads_of_user()
    if limit - used < needed:
        raise UsageError(
            f"Ray cannot start: it needs about {needed} threads, and `ulimit -u` leaves "
            f"{max(limit - used, 0)} of {limit}: raise it, set fewer --workers, or use --serial"
        )


def _threads_of_user() -> int:
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            if folder.stat().st_uid == os.geteuid():
                count += len(list((folder / "task").iterdir()))
    return count


# clusters


def check_address(address: str) -> None:
    """Raises UsageError if the address is malformed, or if no cluster answers there."""
    name, named_by = address, f"--address {address}"
    if address == "auto":
        name = os.environ.get("RAY_ADDRESS") or _local_cluster() or ""
        named_by = "RAY_ADDRESS" if "RAY_ADDRESS" in os.environ else "--address auto"
        if not name:
            return  # Ray looks for a cluster among the running processes
    if name.startswith(("http://", "https://")):
        raise UsageError(
            f"{named_by}: {name} is the address of Ray's dashboard: give HOST:PORT of `ray start "
            "--head` (the default port is 6379)"
        )
    host, colon, port = name.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{named_by}: '{name}' is no address of a cluster: give HOST:PORT, or `auto`"
        )
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline or isinstance(error, socket.gaierror):
                raise UsageError(
                    f"{named_by}: no Ray cluster answers at {name} ({error.strerror or error}): "
                    "start one with `ray start --head`, or leave --address out"
                ) from error
            time.sleep(1)


def _local_cluster() -> str | None:
    """The address that the last `ray start` on this machine wrote."""
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return Path(base, "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return None
