"""A directory behind an fsspec URL, usually in an object store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from mme_core.io.remote import errors_named, open_filesystem, refused

# With these schemes `pipe_file(mode="create")` is one conditional write (checked with s3fs 2026.9
# and fsspec 2026.9). Other file systems check first and write afterwards.
_CONDITIONAL_WRITES = ("s3", "s3a", "memory")
_SETTLE_S = 1.0  # wait after a write without condition, so that a competing write also finishes


class RemotePlace:
    """A directory behind a URL; see Place.

    There are no renames. A folder is written in place, and counts as absent until its marker, the
    last file, exists.
    """

    parallel_reads = 16

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: tuple[int, fsspec.AbstractFileSystem, str] | None = None

    def __repr__(self) -> str:
        return f"RemotePlace({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_opened": None}

    def at(self, name: str) -> str:
        return f"{self.url}/{name}".rstrip("/")

    def _find(self, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
        """Returns the file system and the path in it. The file system is reopened after a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *open_filesystem(self.url))
        _, fs, root = self._opened
        fs.invalidate_cache()  # other processes may have written here
        return fs, f"{root}/{name}".rstrip("/")

    def read(self, name: str) -> bytes:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            return fs.cat_file(path)

    def read_tail(self, name: str, size: int) -> bytes:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            return fs.cat_file(path, start=-size)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            return fs.cat_file(path, start=start, end=end)

    def write(self, name: str, data: bytes | Iterable[bytes | memoryview]) -> None:
        fs, path = self._find(name)
        try:
            with errors_named(self.at(name)):
                fs.pipe_file(path, data if isinstance(data, bytes) else b"".join(data))
        except FileNotFoundError as error:  # no such bucket
            raise refused(self.at(name), error) from error

    def create(self, name: str, data: bytes) -> bool:
        if self.exists(name):
            return False
        if self.url.partition("://")[0] in _CONDITIONAL_WRITES:
            if not self._written_if_absent(name, data):
                # The file may be ours: s3fs retries a write that succeeded without an answer.
                return self._holds(name, data)
            # The second write succeeds only on a server that ignores the condition.
            if not self._written_if_absent(name, data):
                return True
        else:
            self.write(name, data)
        time.sleep(_SETTLE_S)  # the last writer wins
        return self._holds(name, data)

    def _written_if_absent(self, name: str, data: bytes) -> bool:
        fs, path = self._find(name)
        try:
            with errors_named(self.at(name), FileExistsError):
                fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except FileNotFoundError as error:  # no such bucket
            raise refused(self.at(name), error) from error
        return True

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def append(self, name: str, data: Iterable[bytes]) -> bool:
        return False

    def exists(self, name: str = "") -> bool:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            return fs.exists(path)

    def is_file(self, name: str) -> bool:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            return fs.isfile(path)

    def is_folder(self, name: str = "") -> bool:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            return fs.isdir(path)

    def names(self, folder: str = "") -> list[str]:
        fs, path = self._find(folder)
        try:
            with errors_named(self.at(folder)):
                paths = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def files(self, folder: str) -> dict[str, int]:
        fs, top = self._find(folder)
        with errors_named(self.at(folder)):
            found = fs.find(top, detail=True)
        return {path[len(top) + 1 :]: int(about["size"]) for path, about in found.items()}

    def stamps(self, names: list[str]) -> list[str]:
        with ThreadPoolExecutor(self.parallel_reads) as pool:
            return list(pool.map(self._stamp, names))

    def _stamp(self, name: str) -> str:
        fs, path = self._find(name)
        try:
            with errors_named(self.at(name)):
                info = fs.info(path)
        except FileNotFoundError:
            return ""
        keys = ("size", "ETag", "etag", "mtime", "LastModified", "created")
        return " ".join(str(info[key]) for key in keys if key in info)

    def remove(self, name: str) -> None:
        fs, path = self._find(name)
        with errors_named(self.at(name)):
            # Once more where another writer has added a file since the folder was listed.
            while fs.exists(path):
                fs.rm(path, recursive=True)
                fs.invalidate_cache()

    def fetch(self, name: str, target: Path) -> None:
        fs, path = self._find(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with errors_named(self.at(name)):
            fs.get_file(path, str(target))

    def begin(self, folder: str) -> str:
        return folder

    def commit(self, begun: str, folder: str, marker: str) -> None:
        pass  # writing the marker already made the folder appear

    def discard(self, begun: str) -> None:
        pass  # another writer may be using the same folder

    def unfinished(self, parent: str, marker: str) -> list[str]:
        names = self.names(parent)
        stamps = self.stamps([f"{parent}/{name}/{marker}" for name in names])
        return [name for name, stamp in zip(names, stamps) if not stamp]

    def empty_files(self, folder: str) -> list[str]:
        return []  # an object appears with its whole content or not at all
