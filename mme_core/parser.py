"""The parser of a command's words: errors in one line, help with one line an option."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import NoReturn

from mme_core.errors import UsageError
from mme_core.io.remote import is_url

WIDTH = 116  # columns of the help at least; a narrow terminal breaks lines by itself


class CommandParser(argparse.ArgumentParser):
    """A parser for `mme NAME`.

    text  docstring of the command's module: the first paragraph is the description, the rest
          stands below the options, followed by `epilog`

    Wrong words raise UsageError, which the command prints in one line.
    """

    def __init__(self, name: str, text: str | None, epilog: str = "") -> None:
        description, _, rest = (text or "").partition("\n\n")
        description = description.removeprefix(f"`mme {name}`: ")  # the usage names it already
        parts = filter(None, (rest.strip("\n"), epilog))
        super().__init__(
            f"mme {name}",
            description=description[:1].upper() + description[1:],
            epilog="\n\n".join(parts) or None,
            formatter_class=_Formatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` lists the options")


def disk_path(text: str) -> Path:
    """The type of an option that names a file or folder to write, which cannot be a URL."""
    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text} is a URL; name a path on a disk")
    return Path(text)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds to an option's help its default, or that it is required, unless the text has that."""

    def __init__(self, prog: str) -> None:
        width = max(shutil.get_terminal_size().columns - 2, WIDTH)
        super().__init__(prog, max_help_position=30, width=width)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        takes_value = bool(action.option_strings) and action.nargs != 0
        if takes_value and action.required:
            return f"{text} (required)"
        if takes_value and action.default is not None and "(default" not in text:
            return f"{text} (default: %(default)s)"
        return text
