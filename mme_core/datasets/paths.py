"""A data set's folder, on a disk or behind an fsspec URL."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from mme_core.errors import UsageError
from mme_core.io.place import local_path, open_place
from mme_core.io.remote import is_url


class RemotePath:
    """A file or folder behind a URL, with the methods of `pathlib.Path` that importers use."""

    def __init__(self, url: str, name: str = "") -> None:
        self._url, self._place = url, open_place(url)
        self._name = "" if name == "." else name.strip("/")  # relative to the URL

    def __str__(self) -> str:
        return self._place.at(self._name)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self._url, str(PurePosixPath(self._name, name)))

    @property
    def name(self) -> str:
        return PurePosixPath(str(self)).name

    @property
    def parent(self) -> RemotePath:
        return RemotePath(str(self).rpartition("/")[0])

    def exists(self) -> bool:
        return self._place.exists(self._name)

    def is_dir(self) -> bool:
        return self._place.is_folder(self._name)

    def is_file(self) -> bool:
        return self._place.is_file(self._name)

    def iterdir(self) -> Iterator[RemotePath]:
        return (self / name for name in self._place.names(self._name))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yields the paths in this folder whose names match."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def files(self) -> list[str]:
        """Returns the names of all files below this folder, relative to it."""
        return sorted(self._place.files(self._name))

    def read_bytes(self) -> bytes:
        return self._place.read(self._name)


AnyPath = Path | RemotePath


def read_text(path: AnyPath) -> str:
    """Returns the text of a list in UTF-8 or UTF-16, with or without a byte-order mark.

    Bytes that are not valid UTF-8 become surrogates, as in Python's names of files.
    """
    data = path.read_bytes()
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data[:4]:  # only UTF-16 has a zero byte in ASCII text
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        return data.decode(encoding, "surrogateescape")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not {encoding} text: {error.reason}") from error


def read_lines(path: AnyPath) -> Iterator[tuple[int, str]]:
    """Yields (line number, stripped text) of each line of a list that is not blank."""
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        if text := line.strip():
            yield number, text


def read_table(path: AnyPath) -> csv.DictReader[str]:
    """Returns the rows of a list with a heading; commas, semicolons or tabs separate columns."""
    text = read_text(path)
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


def any_path(text: str) -> AnyPath:
    """Returns the path of a text: on a disk (also for file://…) or behind a URL."""
    text = expanded(text)
    if not is_url(text):
        return Path(text)
    return local_path(text) or RemotePath(text.rstrip("/"))


def expanded(path: str) -> str:
    """Replaces a leading `~` by the user's home folder, as a shell does."""
    return os.path.expanduser(path)  # noqa: PTH111 – text stays text
