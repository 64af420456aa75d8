"""What lies behind an fsspec URL: its paths, files to seek in, and its errors in one line."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from mme_core.errors import StoreError

_BLOCK = 4 * 2**20  # bytes that are read ahead of a decoder
_CONNECT_S = 5  # an S3 endpoint that does not answer; s3fs tries five times


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


def join(root: str | os.PathLike[str], path: str) -> str:
    """A stored path below its root; one that is absolute stays as it is."""
    if is_url(path):
        return path
    return os.path.join(root, path)  # noqa: PTH118 – keeps an absolute path as it is


def relative(path: str, root: str) -> str:
    """The path below `root`, or the path itself where it is elsewhere; `join` takes it back."""
    if is_url(root):
        return path.removeprefix(root.rstrip("/") + "/")
    return os.path.relpath(path, root) if Path(path).is_relative_to(root) else path


@contextlib.contextmanager
def errors_named(url: str, *expected: type[Exception]) -> Iterator[None]:
    """Turns what a file system raises into a StoreError with the URL.

    FileNotFoundError and the `expected` errors pass as they are.
    """
    try:
        yield
    except (FileNotFoundError, *expected) as error:
        if _is_unreachable(error):  # HTTP's file system says so of a server that is not there
            raise refused(url, error.__cause__ or error) from error
        raise
    except Exception as error:
        raise refused(url, error) from error


def _is_unreachable(error: BaseException | None) -> bool:
    """Is a connection that failed the cause?"""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def server_of(url: str) -> str:
    """Scheme and host of a URL, such as s3://bucket; "" for a path of a disk."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if separator else ""


def refused(url: str, error: Exception) -> StoreError:
    """Every library has errors of its own, so this names all that a user can mend."""
    text = " ".join(str(error).split()) or type(error).__name__
    return StoreError(
        f"{url}: {text.rstrip('.')}; check that the bucket exists, the endpoint and the "
        "credentials (s3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID or AWS_PROFILE)"
    )


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path there. Raises StoreError for an unknown kind."""
    protocol = url.partition("://")[0]
    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = {"connect_timeout": _CONNECT_S}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise StoreError(f"{url}: cannot open this kind of URL: {error}") from error
    return fs, path.rstrip("/")


class RemoteFile(io.RawIOBase):
    """A file behind a URL, opened for reading.

    Raises FileNotFoundError, and StoreError for every other trouble, also while it is read.
    """

    def __init__(self, url: str) -> None:
        self.name = url
        fs, path = open_filesystem(url)
        with errors_named(url):
            self._file = fs.open(path, "rb", block_size=_BLOCK)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        with errors_named(self.name):
            return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        with errors_named(self.name):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        # Python also closes what it throws away: one that could not be opened has no file.
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
        super().close()
