"""Shows how far a command is: a bar on a terminal, a line every LINE_S seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from mme_core.terminal import is_quiet

LINE_S = 10.0  # between two printed lines
Item = TypeVar("Item")


class Shown:
    """Shows the newest line: beside a bar on a terminal, else printed every LINE_S seconds."""

    def __init__(self, total: int, console: Console) -> None:
        self._console, self._printed = console, time.monotonic()
        self._bar: Bar | None = None
        if console.file.isatty():  # rich's own test obeys FORCE_COLOR, which notebooks set
            columns = BarColumn(), TextColumn("{task.description}")
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, done: int, line: str) -> None:
        """Takes the number of things done and the line that says so."""
        if self._bar:
            self._bar.update(self._task, completed=done, description=line)
        elif time.monotonic() - self._printed > LINE_S:
            self._printed = time.monotonic()
            self._console.print(line, highlight=False, soft_wrap=True)


class Progress(Shown):
    """Counts what is done, of `total` things called `what`, such as "videos"; writes to stderr.

    silent  shows nothing, as in all but one of several processes, and under `mme --quiet`
    """

    def __init__(self, total: int, what: str, silent: bool = False) -> None:
        self._total, self._what = total, what
        self._done = self._failed = 0
        self._began = time.monotonic()
        super().__init__(total, Console(file=sys.stderr, quiet=silent or is_quiet()))

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Counts `done` more things, of which `failed` could not be used."""
        self._done += done
        self._failed += failed
        self.show(self._done, self.line())

    def line(self) -> str:
        """A line such as `12/36 videos · 2.1/s · 1 failed · 0:42 left`."""
        spent = max(time.monotonic() - self._began, 1e-3)
        left = clock(spent * (self._total - self._done) / self._done) if self._done else "?"
        rate = f"{self._done / spent:.3g}/s"
        failed = f" · {self._failed} failed" if self._failed else ""
        return f"{self._done}/{self._total} {self._what} · {rate}{failed} · {left} left"


def follow(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, while their progress is shown."""
    with Progress(total, what) as progress:
        for item in items:
            yield item
            progress.advance()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03 or 0:42."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
