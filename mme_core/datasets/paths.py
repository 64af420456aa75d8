"""A data set's folder, on a disk or behind an fsspec URL."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from mme_core.io.place import local_path, open_place
from mme_core.io.remote import is_url


class RemotePath:
    """As much of `pathlib.Path` as the importers use, for a file or folder behind a URL."""

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
        """Of names in this folder."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def files(self) -> list[str]:
        """All files below, relative to this folder."""
        return sorted(self._place.files(self._name))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self._place.read(self._name).decode(encoding)

    def open(
        self, newline: str | None = None, encoding: str = "utf-8", errors: str = "strict"
    ) -> io.TextIOWrapper:
        data = io.BytesIO(self._place.read(self._name))
        return io.TextIOWrapper(data, encoding, errors, newline)


AnyPath = Path | RemotePath


def read_lines(path: AnyPath) -> Iterator[tuple[int, str]]:
    """(line number, text) of every line of a list that is not blank, without space at its ends.

    A byte-order mark is no part of the text; bytes that are not UTF-8 come as in a file's name.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield number, text


def any_path(text: str) -> AnyPath:
    """A path as given: of a disk (also as file://…), or behind a URL."""
    if not is_url(text):
        return Path(text)
    return local_path(text) or RemotePath(text.rstrip("/"))
