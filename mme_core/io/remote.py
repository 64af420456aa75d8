"""fsspec URLs: joining paths, seekable files, and errors as one line."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from mme_core.errors import UrlError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 4 * 2**20  # number of bytes to read ahead of a decoder
_CONNECT_S = 5  # time limit for a connection to an S3 endpoint; s3fs tries five times


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


def is_in_memory(url: str | os.PathLike[str]) -> bool:
    """Whether this is a URL of fsspec's memory, which no other process sees."""
    return os.fspath(url).startswith("memory://")


def join(root: str | os.PathLike[str], path: str) -> str:
    """Joins a root and a stored path. An absolute path or a URL is returned unchanged."""
    if is_url(path):
        return path
    return os.path.join(root, path)  # noqa: PTH118 – keeps an absolute path as it is


def relative(path: str, root: str) -> str:
    """Returns the path relative to `root`, or unchanged outside of it; the reverse of `join`."""
    if is_url(root):
        return path.removeprefix(root.rstrip("/") + "/")
    return os.path.relpath(path, root) if Path(path).is_relative_to(root) else path


def is_relative(path: str) -> bool:
    """Whether a stored path says nothing without its root."""
    return not is_url(path) and not Path(path).is_absolute()


@contextlib.contextmanager
def errors_named(url: str, *expected: type[Exception]) -> Iterator[None]:
    """Turns any error of a file system into a UrlError that names the URL.

    FileNotFoundError and the `expected` errors are raised unchanged.
    """
    unchanged: tuple[type[Exception], ...] = (FileNotFoundError, *expected)
    try:
        yield
    except unchanged as error:
        if _is_unreachable(error):  # fsspec's HTTP raises FileNotFoundError for a missing server
            cause = error.__cause__
            shown = cause if isinstance(cause, Exception) else error
            raise refused(url, shown) from error
        raise
    except Exception as error:
        raise refused(url, error) from error


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether a failed connection is among the causes of the error."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def server_of(url: str) -> str:
    """Returns the scheme and host of a URL, such as s3://bucket; "" for a local path."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if separator else ""


def refused(url: str, error: Exception) -> UrlError:
    """Returns a UrlError that names everything the user can check.

    Each file system has its own error classes, so the cause is not known more exactly.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return UrlError(
        f"{url}: {text.rstrip('.')}; check that the bucket exists, the endpoint and the "
        "credentials (s3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID or AWS_PROFILE)"
    )


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns a URL's file system and the path in it. Raises UrlError for an unknown scheme."""
    protocol = url.partition("://")[0]
    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = {"connect_timeout": _CONNECT_S}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UrlError(f"{url}: cannot open this kind of URL: {error}") from error
    return fs, path.rstrip("/")


class RemoteFile(io.RawIOBase):
    """A file behind a URL, open for reading.

    Opening and reading raise FileNotFoundError for a missing file, and UrlError for any other
    problem.
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

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
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
        # Python also calls this for an object whose __init__ failed, which has no file.
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
        super().close()
