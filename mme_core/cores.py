"""Number of CPU cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Returns the number of cores in this process' affinity, limited by its CPU quota.

    groups      folder where the control groups are mounted (Linux, versions 1 and 2)
    membership  file that names the control groups of this process

    A container with 2.5 cores counts as 3.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = min(_quotas(groups, membership), default=math.inf)
    return cores if quota >= cores else max(math.ceil(quota), 1)


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """CPU quotas, in cores, of the process' groups and of all groups above them."""
    for line in (_read(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops = [groups, groups / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [groups / controllers, groups / "cpu"]
        else:
            continue
        relative = path.strip("/")
        for top in tops:
            here = top / relative
            for folder in (here, *here.parents):
                if folder.is_relative_to(top):
                    yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Yields the CPU quota in a group's folder, in cores, for version 2 or 1."""
    both = (_read(folder / "cpu.max") or "").split()
    if not both:
        both = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    try:
        quota, period = int(both[0]), int(both[1])
    except ValueError:  # "max", or no such file
        return
    if quota > 0 and period > 0:
        yield quota / period


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
