"""`csv`: the `path label` lists that users of VideoMAE and MME have.

One video a line, its path and a whole number, separated by a space, a tab or a comma; the path
may itself hold spaces and commas. -1 stands for no label; a first line `path label` is a heading.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from mme_core.datasets.folder import absolute
from mme_core.datasets.manifest import NO_LABEL, Manifest, VideoItem, count_note, missing_note
from mme_core.datasets.paths import AnyPath, any_path, read_lines
from mme_core.errors import UsageError
from mme_core.io.remote import is_url, join, relative

_LINE = re.compile(r"(?P<path>.+?)\s*[,\s]\s*(?P<label>[^\s,]+)")
_HEADING = re.compile(r"(path|video)\s*[,\s]\s*label", re.IGNORECASE)
_MOST_CLASSES = 1_000_000  # a larger label is a mistake, such as a number of frames


def load(root: str, split: str | None, list_file: str | None = None) -> Manifest:
    """The videos of a list.

    root        the folder that relative paths start from, or the list itself: then its folder
    split       names the list when `list_file` is None and root a folder: root/SPLIT.csv or .txt
    list_file   the list
    """
    path, top = _find_list(any_path(root), split, list_file)
    seen: dict[str, tuple[int, VideoItem]] = {}
    repeated: list[str] = []
    for number, video, label in read_list(path):
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
    notes = count_note("lines repeat a video and were left out", repeated)
    return Manifest("csv", str(top), split, names, items, notes + missing_note(items, str(top)))


def read_list(path: AnyPath) -> Iterator[tuple[int, str, int]]:
    """(line number, path, label) of every line; UsageError names the file and the line."""
    for number, text in read_lines(path):
        if number > 1 or not _HEADING.fullmatch(text):
            yield number, *_parse(text, f"{path}:{number}")


def _parse(text: str, where: str) -> tuple[str, int]:
    match = _LINE.fullmatch(text)
    if match is None:
        raise UsageError(f"{where}: '{text}' has no label; a line is `path label` (-1: none)")
    video, label = match["path"].strip('"'), match["label"]
    if not re.fullmatch(r"-1|\d+", label):
        raise UsageError(f"{where}: label '{label}' is not a whole number; a line is `path label`")
    if int(label) >= _MOST_CLASSES:
        raise UsageError(f"{where}: label {label} is too large to be a class's number")
    return video, int(label)


def _find_list(root: AnyPath, split: str | None, list_file: str | None) -> tuple[AnyPath, AnyPath]:
    if list_file is not None:
        path, top = any_path(list_file), root
    elif root.is_dir():
        path, top = _list_in(root, split), root
    else:
        path, top = root, root.parent
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"the list {path} {state}; give it with --list (make: LIST=FILE)")
    return path, absolute(top)


def _list_in(root: AnyPath, split: str | None) -> AnyPath:
    if split is None:
        raise UsageError(f"{root} is a folder: name the list with --list FILE or --split NAME")
    text = root / f"{split}.txt"
    return text if text.is_file() else root / f"{split}.csv"


def _item(top: AnyPath, video: str, label: int) -> VideoItem:
    path = join(str(top), video)
    path = path if is_url(path) else os.path.normpath(path)
    return VideoItem(relative(path, str(top)), path, label)
