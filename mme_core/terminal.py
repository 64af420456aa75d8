"""Text for the terminal that may hold what others wrote: names of files, classes and videos."""

from __future__ import annotations

import re

from rich.text import Text

# Control characters, and marks that turn the order of what follows them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """One line whose every character is seen: others come as their escapes, such as \\x1b.

    What a terminal would obey, moving its cursor or changing its title, it only shows.
    """
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], str(text))


def plain_lines(text: object) -> str:
    """The same of several lines."""
    return "\n".join(map(plain, str(text).split("\n")))


def styled(text: object, style: str = "") -> Text:
    """For rich's `print` and tables, which would read [words] in a str as markup, :cat: as a sign.

    Newlines stay.
    """
    return Text(plain_lines(text), style)
