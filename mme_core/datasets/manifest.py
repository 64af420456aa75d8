"""What a data set is to the rest of the system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mme_core.errors import UsageError

NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class VideoItem:
    """One video: `id` names it in the store, `path` opens it, `label` indexes the class names."""

    id: str
    path: str
    label: int = NO_LABEL


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set or of one of its splits, sorted by id, ids unique.

    notes are lines for the user: what was left out, and how much of it.
    """

    dataset: str
    root: str
    split: str | None
    class_names: tuple[str, ...]
    items: tuple[VideoItem, ...]
    notes: tuple[str, ...] = ()


def sort_items(items: Iterable[VideoItem]) -> tuple[VideoItem, ...]:
    """Items by id; of equal ids with equal labels one is kept, unequal labels are an error."""
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
    """A note such as `3 files … (a, b, c)`, or nothing when there is no example."""
    if not examples:
        return ()
    shown = ", ".join(examples[:3]) + (", …" if len(examples) > 3 else "")
    return (f"{len(examples)} {what} ({shown})",)


def missing_root(dataset: str) -> str:
    return f"the data set '{dataset}' needs its folder: --root DIR (make: ROOT=DIR)"
