"""`Manifest` and `VideoItem`: the form in which every data set lists its videos."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mme_core.errors import UsageError
from mme_core.io.containers import INSIDE, is_inside
from mme_core.io.remote import is_url

NO_LABEL = -1
MISSING = "missing videos of the list"


@dataclass(frozen=True, slots=True)
class VideoItem:
    """One video: `id` names it in the store, `path` opens it, `label` indexes the class names."""

    id: str
    path: str
    label: int = NO_LABEL


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set or of one of its splits, sorted by id, ids unique.

    notes     lines for the user: what was left out, and how much of it
    missing   what the official list names and the folder lacks
    """

    dataset: str
    root: str
    split: str | None
    class_names: tuple[str, ...]
    items: tuple[VideoItem, ...]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def sort_items(items: Iterable[VideoItem]) -> tuple[VideoItem, ...]:
    """Sorts items by id and drops repeated ones. Raises UsageError for an id with two labels."""
    kept: list[VideoItem] = []
    for item in sorted(items, key=lambda item: item.id):
        if kept and kept[-1].id == item.id:
            if kept[-1].label != item.label:
                raise UsageError(
                    f"'{item.id}' is listed with two labels, {kept[-1].label} and {item.label}"
                )
            continue
        kept.append(item)
    return tuple(kept)


def count_note(what: str, examples: Sequence[str]) -> tuple[str, ...]:
    """Returns a note such as `files …: 3 (a, b, c)`, or nothing where there is no example."""
    if not examples:
        return ()
    shown = ", ".join(examples[:3]) + (", …" if len(examples) > 3 else "")
    return (f"{what}: {len(examples)} ({shown})",)


def missing_note(items: Sequence[VideoItem], root: str) -> tuple[str, ...]:
    """Returns a note on the items whose local files are missing.

    Raises UsageError where all are missing. Each folder is listed once, which is much faster on a
    network disk than a check of every file.
    """
    folders: dict[str, list[VideoItem]] = defaultdict(list)
    for item in items:
        if not is_url(item.path):
            folders[os.path.dirname(_file(item))].append(item)  # noqa: PTH120 – text stays text
    missing = []
    for folder, inside in folders.items():
        names = _listed(folder)
        missing += [item.id for item in inside if not _is_there(_file(item), names)]
    if missing and len(missing) == len(items):
        raise none_found(root, missing)
    return count_note(MISSING, missing)


def _file(item: VideoItem) -> str:
    return item.path.partition(INSIDE)[0] if is_inside(item.path) else item.path


def _is_there(path: str, names: frozenset[str]) -> bool:
    # The second question is for folders that may be entered and not listed.
    return os.path.basename(path) in names or os.path.exists(path)  # noqa: PTH110, PTH119


def _listed(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or "."))  # noqa: PTH208 – names, not paths
    except OSError:
        return frozenset()


def none_found(root: str, missing: Sequence[str]) -> UsageError:
    return UsageError(
        f"no video of the list is below {root}, such as {missing[0]} ({len(missing)} in all); "
        "check root=…"
    )


def missing_root(dataset: str) -> str:
    return f"the data set '{dataset}' needs its folder: set root=…"
