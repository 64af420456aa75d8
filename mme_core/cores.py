"""What the CPU offers: the number of cores that this process may use, and bf16."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from mme_core.control_groups import GROUPS, MEMBERSHIP, group_folders, read_text

CPUINFO = Path("/proc/cpuinfo")  # Linux alone
_BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # the last one of ARM


def usable_cores(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> int:
    """Returns the number of cores in this process' affinity, limited by its CPU quota.

    groups      folder where the control groups are mounted (Linux, versions 1 and 2)
    membership  file that names the control groups of this process

    A container with 2.5 cores counts as 3.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    folders = group_folders("cpu", groups, membership)
    quota = min((quota for folder in folders for quota in _quota(folder)), default=math.inf)
    return cores if quota >= cores else max(math.ceil(quota), 1)


def bf16_instructions(cpuinfo: Path = CPUINFO) -> str | None:
    """Returns the name of the CPU's bf16 instructions, "" if it has none, None if unknown.

    Without them bf16 is computed in software, which is much slower than fp32
    (docs/measurements/model.md).
    """
    text = read_text(cpuinfo)
    if text is None:
        return None
    return next((flag for flag in _BF16_FLAGS if flag in text.split()), "")


def _quota(folder: Path) -> Iterator[float]:
    """Yields the CPU quota in a group's folder, in cores, for version 2 or 1."""
    both = (read_text(folder / "cpu.max") or "").split()
    if not both:
        both = [read_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    try:
        quota, period = int(both[0]), int(both[1])
    except ValueError:  # "max", or no such file
        return
    if quota > 0 and period > 0:
        yield quota / period
