"""The training videos that could not be read: their names, number and limit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import Any

from mme_core.errors import MMEError
from mme_core.report.words import counted
from train.engine.distributed import Ranks


class Unread:
    """What all processes of a run know of videos that could not be read.

    budget  number of different videos that may fail; the run ends when more do
    mend    videos (indices) -> what the user can do about them

    A process adds what its loader reports, and takes it out again with each step. The loop
    exchanges these parts, so `known` is the same in all processes after the same step.
    """

    def __init__(self, budget: int, mend: Callable[[Collection[int]], str]) -> None:
        self.budget, self.mend = budget, mend
        self.known: dict[int, str] = {}  # video: reason
        self._added: dict[int, str] = {}

    def watch(self, loader: Iterable[dict[str, Any]], ranks: Ranks) -> Generator[dict[str, Any]]:
        """Yields the loader's batches, and adds the videos of their "failed": {video: reason}.

        In the place of a batch without clips the batch before comes again, because all processes
        must take the step after which they stop together. Raises MMEError in all processes if the
        first batch of one of them has no clips.
        """
        last: dict[str, Any] = {}
        for batch in loader:
            failed = batch.pop("failed")
            self.add(failed)
            if not last:
                self._check_first(ranks.gather({} if batch else failed))
            last = batch or last
            yield last

    def _check_first(self, parts: Iterable[Mapping[int, str]]) -> None:
        """`parts` holds the videos of each process' first batch, if none of it can be read."""
        failed = {video: text for part in parts for video, text in part.items()}
        if failed:
            reason = next(iter(failed.values()))
            raise MMEError(f"no video can be read: {reason}; {self.mend(failed)}")

    def add(self, failed: Mapping[int, str]) -> None:
        self._added |= {video: text for video, text in failed.items() if video not in self.known}

    def take(self) -> dict[int, str]:
        """What was added since the last call."""
        added, self._added = self._added, {}
        return added

    def note(self, parts: Iterable[Mapping[int, str]]) -> dict[int, str]:
        """Adds what the processes took at one step; returns what was not known before."""
        found = {video: text for part in parts for video, text in part.items()}
        new = {video: found[video] for video in sorted(found.keys() - self.known.keys())}
        self.known |= new
        return new

    @property
    def spent(self) -> bool:
        """Whether more videos have failed than the budget allows."""
        return len(self.known) > self.budget

    def check(self, step: int) -> None:
        """Raises MMEError where the budget is spent. `step` is the one that was saved."""
        if self.spent:
            raise MMEError(
                f"{counted(len(self.known), 'video')} cannot be read, more than data.bad_budget="
                f"{self.budget}; saved after step {step}: {self.mend(self.known)}, then run the "
                "same command again"
            )
