"""`csv`: lists of `path label` lines, as users of VideoMAE, MME and mmaction2 have them.

Each line is one video. `mme_core.datasets.listfile` describes the forms of a line.
"""

from __future__ import annotations

import os

from mme_core.datasets.folder import absolute
from mme_core.datasets.listfile import read_list
from mme_core.datasets.manifest import NO_LABEL, Manifest, VideoItem, count_note, missing_note
from mme_core.datasets.paths import AnyPath, any_path, expanded
from mme_core.errors import UsageError
from mme_core.io.remote import is_url, join, relative


def load(root: str, split: str | None, list_file: str | None = None) -> Manifest:
    """Returns the videos of a list.

    root        folder that relative paths start from, or the list itself, whose folder is used then
    split       if `list_file` is None and `root` is a folder: the list is root/SPLIT.csv or .txt
    list_file   the list
    """
    path, top = _find_list(any_path(root), split, list_file)
    seen: dict[str, tuple[int, VideoItem]] = {}
    repeated: list[str] = []
    rows, how = read_list(path)
    if not rows:
        raise UsageError(f"the list {path} holds no video: it needs lines of the form 'path label'")
    for number, video, label in rows:
        item = _item(top, video, label)
        first, known = seen.setdefault(item.id, (number, item))
        if known.label != label:
            raise UsageError(
                f"{path}:{number}: '{video}' has label {label}, but {known.label} in line {first}"
            )
        if first != number:
            repeated.append(item.id)
    items = tuple(seen[video][1] for video in sorted(seen))
    classes = max((item.label for item in items), default=NO_LABEL) + 1
    names = tuple(str(number) for number in range(classes))
    notes = how + _sparse_note({item.label for item in items} - {NO_LABEL})
    notes += count_note("lines left out because they repeat a video", repeated)
    return Manifest("csv", str(top), split, names, items, notes + missing_note(items, str(top)))


def _sparse_note(labels: set[int]) -> tuple[str, ...]:
    """A note if most labels up to the largest do not occur: each costs a classifier an output."""
    classes = max(labels, default=NO_LABEL) + 1
    if classes <= 2 * len(labels):
        return ()
    return (f"the largest label is {classes - 1}, but only {len(labels)} labels occur",)


def _find_list(root: AnyPath, split: str | None, list_file: str | None) -> tuple[AnyPath, AnyPath]:
    if list_file is not None:
        path, top = any_path(list_file), root
    elif root.is_dir():
        path, top = _list_in(root, split), root
    else:
        path, top = root, root.parent
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"the list {path} {state}; set list_file=…")
    return path, absolute(top)


def _list_in(root: AnyPath, split: str | None) -> AnyPath:
    if split is None:
        raise UsageError(f"{root} is a folder: name the list with list_file=… or split=…")
    text = root / f"{split}.txt"
    return text if text.is_file() else root / f"{split}.csv"


def _item(top: AnyPath, video: str, label: int) -> VideoItem:
    path = join(str(top), expanded(video))
    path = path if is_url(path) else os.path.normpath(path)
    return VideoItem(relative(path, str(top)), path, label)
