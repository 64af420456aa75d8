"""Reads lists of videos, one path and label a line, in the dialects that other tools write.

Columns are separated by spaces, tabs, commas or semicolons. A path may hold these characters too,
with or without double quotes, because the numbers are read from the end of the line. Two columns
are path and label. Three columns are path, number of frames and label (TSN, mmaction2), or path,
first frame and number of frames (VideoMAE v2), which has no labels. If there is a heading, its
names say what the columns hold. Lines that begin with # are comments.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mme_core.datasets.manifest import NO_LABEL, count_note
from mme_core.datasets.paths import AnyPath, read_lines
from mme_core.datasets.suffixes import VIDEO_SUFFIXES
from mme_core.errors import UsageError

MOST_CLASSES = 1_000_000  # a larger label is a mistake, such as a number of frames

_NUMBER = r'"?-?\d+"?'
# A path may end with a semicolon, so it separates columns only if nothing else does.
_ENDS = [
    re.compile(rf"(?P<rest>.+?)\s*{separator}\s*(?P<number>{_NUMBER})")
    for separator in (r"[,\s]", ";")
]
_PATH_NAMES = {"path", "video", "video_path", "videopath", "file", "file_path", "filepath"}
_PATH_NAMES |= {"filename", "file_name", "video_name", "name"}
_LABEL_NAMES = {"label", "labels", "class", "class_id", "class_index", "label_id", "target"}
_LINE = "a line is `path label` (label -1: none)"

Row = tuple[int, str, int]  # line number, path, label


@dataclass(frozen=True)
class _Line:
    """One line, read in both ways.

    where   file and line, for messages
    two     read as path and label
    three   read as path and two numbers; None if the line does not end in two numbers
    sure    only `three` can be right
    """

    number: int
    where: str
    two: tuple[str, str]
    three: tuple[str, str, str] | None = None
    sure: bool = False


def read_list(path: AnyPath) -> tuple[list[Row], tuple[str, ...]]:
    """Returns (line number, path, label) of every video, and notes on how the list was read.

    Raises UsageError with the file, the line and the column of what cannot be read.
    """
    lines: list[tuple[int, str]] = []
    comments: list[tuple[int, str]] = []
    for number, text in read_lines(path):
        kind = comments if text.startswith("#") else lines
        kind.append((number, text))
    if not lines:
        return [], ()
    like_rows = [text for _, text in comments if _numbers(text)]
    notes = count_note("lines left out because they begin with #", like_rows)
    heading = _heading(lines[0][1])
    if heading is not None:
        return list(_with_heading(path, lines, *heading)), notes
    rows, how = _by_position([_parse(n, text, f"{path}:{n}") for n, text in lines])
    return rows, notes + how


# columns


def _parse(number: int, text: str, where: str) -> _Line:
    """Reads the path and the one or two numbers after it."""
    if text.startswith('"'):
        return _quoted(number, text, where)
    text = text.rstrip(" \t,;")
    found = _numbers(text)
    if not found:
        words = re.split(r"[,;\s]+", text)
        if len(words) == 1:
            raise UsageError(f"{where}: '{text}' has no label in column 2; {_LINE}")
        raise UsageError(f"{where}: {_no_number(words[-1], len(words))}")
    path, label = found[0]
    if path.endswith(","):
        raise UsageError(f"{where}: column 2 is empty; {_LINE}")
    if len(found) == 1:
        return _Line(number, where, (path, label))
    three = (found[1][0], found[1][1], label)
    return _Line(number, where, (path, label), three, sure=_is_video(three[0]))


def _numbers(text: str) -> list[tuple[str, str]]:
    """Returns (text before it, number) of the last one or two numbers, the last one first."""
    found: list[tuple[str, str]] = []
    while len(found) < 2:
        match = next((hit for end in _ENDS if (hit := end.fullmatch(text))), None)
        if match is None:
            break
        text = match["rest"]
        if text.endswith(";") and _is_video(text.rstrip("; ")):
            text = text.rstrip("; ")
        found.append((text, match["number"].strip('"')))
    return found


def _quoted(number: int, text: str, where: str) -> _Line:
    for delimiter in (",", "\t", ";", " "):
        fields = _read_csv(text, delimiter)
        while fields and not fields[-1]:  # the line ends with a comma
            fields.pop()
        if not all(re.fullmatch(r"-?\d+", field) for field in fields[1:]):
            continue
        if len(fields) == 2:
            return _Line(number, where, (fields[0], fields[1]))
        if len(fields) == 3:
            three = (fields[0], fields[1], fields[2])
            return _Line(number, where, (fields[0], fields[2]), three, sure=True)
    if text.count('"') % 2:
        raise UsageError(f"{where}: a double quote in column 1 is not closed; {_LINE}")
    raise UsageError(f"{where}: column 2 is not a whole number; {_LINE}")


def _read_csv(text: str, delimiter: str) -> list[str]:
    try:
        fields = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return []
    return [field.strip() for field in fields]


# with a heading


def _heading(text: str) -> tuple[str, list[str]] | None:
    """Returns (delimiter, names) if the line names a column of paths and holds no number."""
    for delimiter in (",", "\t", ";", " "):
        names = [name.lower() for name in _read_csv(text, delimiter) if name]
        if len(names) > 1 and _PATH_NAMES & set(names) and all(map(_is_name, names)):
            return delimiter, names
    return None


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[^\W\d][\w .()-]*", text)) and not _is_video(text)


def _is_video(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in VIDEO_SUFFIXES


def _with_heading(
    path: AnyPath, lines: Sequence[tuple[int, str]], delimiter: str, names: list[str]
) -> Iterator[Row]:
    paths = [number for number, name in enumerate(names) if name in _PATH_NAMES]
    labels = [number for number, name in enumerate(names) if name in _LABEL_NAMES]
    if len(paths) != 1 or len(labels) != 1:
        raise UsageError(
            f"{path}:{lines[0][0]}: the heading {', '.join(names)} must name one column `path` and "
            "one column `label`"
        )
    if len(names) == 2 and paths[0] == 0:
        yield from _two_columns(path, lines[1:])
        return
    for number, text in lines[1:]:
        where = f"{path}:{number}"
        fields = _read_csv(text, delimiter)
        if len(fields) <= max(paths[0], labels[0]) or len(fields) > len(names) + 1:
            raise UsageError(
                f"{where}: {len(fields)} columns, but the heading names {len(names)}; put quotes "
                "around a path that holds the separator"
            )
        yield number, fields[paths[0]], _label(fields[labels[0]], where, labels[0] + 1)


def _two_columns(path: AnyPath, lines: Sequence[tuple[int, str]]) -> Iterator[Row]:
    """The lines below a heading of two names, which may have another separator."""
    for number, text in lines:
        yield _two(_parse(number, text, f"{path}:{number}"))


# by position


def _by_position(lines: Sequence[_Line]) -> tuple[list[Row], tuple[str, ...]]:
    """Reads three columns if every line has them. Raises UsageError if only some lines do."""
    threes = [(line, line.three) for line in lines if line.three is not None]
    if len(threes) < len(lines):
        odd = next((line for line in lines if line.sure), None)
        if odd is not None:
            two = next(line for line in lines if line.three is None)
            raise UsageError(
                f"{odd.where}: three columns, but line {two.number} has two; give every line the "
                "same columns, and put quotes around a path that ends in a number"
            )
        return [_two(line) for line in lines], ()
    if all(three[1] in ("0", "1") for _, three in threes):
        rows = [(line.number, three[0], NO_LABEL) for line, three in threes]
        return rows, ("three columns, read as path, first frame and number of frames: no labels",)
    rows = [(line.number, three[0], _label(three[2], line.where, 3)) for line, three in threes]
    return rows, ("three columns, read as path, number of frames and label",)


def _two(line: _Line) -> Row:
    return line.number, line.two[0], _label(line.two[1], line.where, 2)


def _label(text: str, where: str, column: int) -> int:
    if not re.fullmatch(r"-1|\d+", text):
        raise UsageError(f"{where}: {_no_number(text, column)}")
    if int(text) >= MOST_CLASSES:
        raise UsageError(
            f"{where}: label {text} in column {column} is too large to be a class's number"
        )
    return int(text)


def _no_number(text: str, column: int) -> str:
    return f"label '{text}' in column {column} is not a whole number; {_LINE}"
