"""What every command prints: foreign text made safe for the terminal, and how much of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.text import Text

# Control characters, and marks that reverse the direction of the text after them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """Returns the text as one line, with invisible characters as escapes such as \\x1b.

    So the terminal shows escape sequences instead of obeying them.
    """
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], str(text))


def plain_lines(text: object) -> str:
    """Like `plain`, but keeps newlines."""
    return "\n".join(map(plain, str(text).split("\n")))


def styled(text: object, style: str = "") -> Text:
    """Returns the text for rich, which would read [words] in a str as markup and :cat: as an emoji.

    Newlines are kept.
    """
    return Text(plain_lines(text), style)


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quieted(quiet: bool) -> Iterator[None]:
    """With quiet=True, `is_quiet()` is true inside: only results and errors are printed."""
    token = _quiet.set(quiet)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether the command runs with --quiet."""
    return _quiet.get()
