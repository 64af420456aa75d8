"""A directory on this machine or behind an fsspec URL, with the few operations a store needs.

Local directories get what only they can do: atomic renames, and reads that share no file position,
so that a reader goes on working after a fork.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from mme_core.io.remote import errors_named, open_filesystem, refused

_LOCAL = ("file", "local")


class Place:
    """Names are relative to the directory, in posix form.

    A missing file is FileNotFoundError; whatever else a remote file system refuses is StoreError.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url).rstrip("/") or "/"
        protocol, separator, rest = self.url.partition("://")
        self.local: Path | None = None
        if not separator:
            self.local = Path(self.url).expanduser()
        elif protocol in _LOCAL:
            self.local = Path("/" + rest.lstrip("/"))
        self._opened: tuple[int, fsspec.AbstractFileSystem, str] | None = None

    def __repr__(self) -> str:
        return f"Place({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "local": self.local, "_opened": None}

    def at(self, name: str) -> str:
        """The address of one file, for messages."""
        return f"{self.url}/{name}".rstrip("/")

    def _remote(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system and the directory's path there; opened anew after a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *open_filesystem(self.url))
        fs = self._opened[1]
        fs.invalidate_cache()  # others write here
        return fs, self._opened[2]

    def read(self, name: str) -> bytes:
        if self.local is not None:
            return (self.local / name).read_bytes()
        fs, root = self._remote()
        with errors_named(self.at(name)):
            return fs.cat_file(f"{root}/{name}")

    def read_tail(self, name: str, size: int) -> bytes:
        """The last `size` bytes of a file."""
        if self.local is not None:
            with (self.local / name).open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(end - size, 0))
                return file.read()
        fs, root = self._remote()
        with errors_named(self.at(name)):
            return fs.cat_file(f"{root}/{name}", start=-size)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes start … end − 1; fewer where the file is shorter."""
        if self.local is not None:
            with (self.local / name).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), end - start, start)
        fs, root = self._remote()
        with errors_named(self.at(name)):
            return fs.cat_file(f"{root}/{name}", start=start, end=end)

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """The whole file at once, also from parts: a reader sees the old content or the new.

        On a disk the parts need not be in memory together.
        """
        parts = [data] if isinstance(data, bytes) else data
        if self.local is None:
            fs, root = self._remote()
            try:
                with errors_named(self.at(name)):
                    fs.pipe_file(f"{root}/{name}", b"".join(parts))
            except FileNotFoundError as error:  # no such bucket
                raise refused(self.at(name), error) from error
            return
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with aside.open("wb") as file:
                file.writelines(parts)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def exists(self, name: str = "") -> bool:
        if self.local is not None:
            return (self.local / name).exists()
        fs, root = self._remote()
        with errors_named(self.at(name)):
            return fs.exists(f"{root}/{name}".rstrip("/"))

    def is_file(self, name: str) -> bool:
        if self.local is not None:
            return (self.local / name).is_file()
        fs, root = self._remote()
        with errors_named(self.at(name)):
            return fs.isfile(f"{root}/{name}")

    def is_folder(self, name: str = "") -> bool:
        if self.local is not None:
            return (self.local / name).is_dir()
        fs, root = self._remote()
        with errors_named(self.at(name)):
            return fs.isdir(f"{root}/{name}".rstrip("/"))

    def names(self, folder: str = "") -> list[str]:
        """Sorted names in a folder; empty when there is none."""
        if self.local is not None:
            path = self.local / folder
            return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        fs, root = self._remote()
        try:
            with errors_named(self.at(folder)):
                paths = fs.ls(f"{root}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def files(self, folder: str) -> dict[str, int]:
        """Bytes of all files below a folder, by their names relative to it."""
        if self.local is not None:
            top = self.local / folder
            files = (path for path in top.rglob("*") if path.is_file())
            return {path.relative_to(top).as_posix(): path.stat().st_size for path in files}
        fs, root = self._remote()
        top = f"{root}/{folder}".rstrip("/")
        with errors_named(self.at(folder)):
            found = fs.find(top, detail=True)
        return {path[len(top) + 1 :]: int(about["size"]) for path, about in found.items()}

    def stamps(self, names: list[str]) -> list[str]:
        """For each file a text that changes when it is written anew; "" where it is missing."""
        with ThreadPoolExecutor(1 if self.local is not None else 16) as pool:
            return list(pool.map(self._stamp, names))

    def _stamp(self, name: str) -> str:
        try:
            if self.local is not None:
                stat = (self.local / name).stat()
                return f"{stat.st_size} {stat.st_mtime_ns}"
            fs, root = self._remote()
            with errors_named(self.at(name)):
                info = fs.info(f"{root}/{name}")
        except FileNotFoundError:
            return ""
        keys = ("size", "ETag", "etag", "mtime", "LastModified", "created")
        return " ".join(str(info[key]) for key in keys if key in info)

    def remove(self, name: str) -> None:
        """A file or a folder with all in it; nothing when it is missing."""
        if self.local is not None:
            path = self.local / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            return
        fs, root = self._remote()
        with errors_named(self.at(name)):
            if fs.exists(f"{root}/{name}"):
                fs.rm(f"{root}/{name}", recursive=True)

    def fetch(self, name: str, target: Path) -> None:
        """Copies a file to this machine."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.local is not None:
            shutil.copyfile(self.local / name, target)
            return
        fs, root = self._remote()
        with errors_named(self.at(name)):
            fs.get_file(f"{root}/{name}", str(target))
