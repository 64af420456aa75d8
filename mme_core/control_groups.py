"""Control groups of Linux (versions 1 and 2), which limit a container or a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")  # where the control groups are mounted
MEMBERSHIP = Path("/proc/self/cgroup")  # names the control groups of this process

# files of the limit and of the memory in use, in versions 2 and 1
_MEMORY = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def group_folders(controller: str, groups: Path, membership: Path) -> Iterator[Path]:
    """The folders of the process' groups and of all groups above them. They need not exist.

    controller  cpu or memory
    """
    for line in (read_text(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops = [groups, groups / "unified"]
        elif controller in controllers.split(","):
            tops = [*dict.fromkeys((groups / controllers, groups / controller))]
        else:
            continue
        relative = path.strip("/")
        for top in tops:
            here = top / relative
            yield from (folder for folder in (here, *here.parents) if folder.is_relative_to(top))


def memory_limits(
    groups: Path = GROUPS, membership: Path = MEMBERSHIP
) -> Iterator[tuple[int, int]]:
    """(limit, memory in use), bytes, of each of the process' groups that has a limit."""
    for folder in group_folders("memory", groups, membership):
        for limit, used in _MEMORY:
            text = read_text(folder / limit) or ""
            if text.isdecimal():  # not "max"
                yield int(text), int(read_text(folder / used) or 0)


def read_text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
