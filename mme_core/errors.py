"""Errors that the command line prints as one line, without a traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class MMEError(Exception):
    """A problem that the user can fix.

    The message names the file or field, says what is wrong, and how to fix it.
    """


class UsageError(MMEError):
    """Wrong arguments or configuration; the command exits with status 2."""


class VideoError(MMEError):
    """A video that cannot be used; the message is the reason in the ledger."""


class StoreError(MMEError):
    """A store that is missing, incomplete, damaged or made with another specification."""


class UrlError(StoreError):
    """A URL that cannot be opened, read or written."""


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first `most` names for a message, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def named(**names: str) -> Iterator[None]:
    """Inside, errors that say `argument=…` use the name that the user knows: {argument: name}.

    The library's errors name its arguments. A command translates them to its options or keys:

    with named(ratio="mask.ratio"):
        hidden_count(shape, config.mask.ratio)
    """
    words = "|".join(map(re.escape, names))
    try:
        yield
    except MMEError as error:
        text = re.sub(rf"(?<![\w.])({words})(?==)", lambda found: names[found[1]], str(error))
        raise type(error)(text) from error


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, an OSError names the file. Python leaves that out when a write finds a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise
