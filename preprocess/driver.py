"""What the commands that write shards share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from mme_core.io.place import Place
from mme_core.store.leftovers import remove_leftovers
from mme_core.terminal import plain
from preprocess.isolate import ShardResult
from preprocess.ledger import Ledger
from preprocess.lock import StoreLock, check_owner
from preprocess.progress import Display

TERMINATED = 128 + signal.SIGTERM


def until_terminated(work: Callable[[], int]) -> int:
    """Returns the exit status of `work`. SIGTERM raises an error in it, so that it can clean up."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return work()
    except SystemExit:  # Ray may lose the status of one that is raised inside its calls
        return TERMINATED
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)


@contextmanager
def without_leftovers(place: Place, lock: StoreLock) -> Iterator[None]:
    """Removes what killed writers left in the store; after the block also what this run left."""
    remove_leftovers(place.url)
    try:
        yield
    finally:
        if lock.is_mine():
            remove_leftovers(place.url)


def recorded(
    results: Iterator[ShardResult], ledger: Ledger, place: Place, lock: str, display: Display
) -> Iterator[ShardResult]:
    """Yields each finished shard after the ledger and the display have it.

    A run that is stopped leaves the ledger complete. Raises StoreError where another command has
    taken over the store.
    """
    try:
        for result in results:
            check_owner(place, lock)
            ledger.add(result.number, result.outcomes)
            display.finish(result)
            yield result
    finally:
        if ledger.behind:
            check_owner(place, lock)
            ledger.save()


def say(console: Console, *lines: str) -> None:
    """Prints each line as it is, however long."""
    for line in lines:
        console.print(Text(plain(line)), soft_wrap=True)
