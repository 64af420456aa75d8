"""The training videos that could not be read: their names, number and limit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from mme_core.errors import StoreError


class Unread:
    """What all processes of a run know of videos that could not be read.

    budget  so many different videos may fail; the run ends when more do
    mend    videos (indices) -> what the user can do about them

    A process adds what its loader reports, and takes it out again with each step. The loop
    exchanges these parts, so `known` is the same in all processes after the same step.
    """

    def __init__(self, budget: int, mend: Callable[[Collection[int]], str]) -> None:
        self.budget, self.mend = budget, mend
        self.known: dict[int, str] = {}  # video: reason
        self._added: dict[int, str] = {}

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
        """Have more videos failed than the budget allows?"""
        return len(self.known) > self.budget

    def check(self, step: int) -> None:
        """Raises StoreError where the budget is spent. `step` is the one that was saved."""
        if self.spent:
            raise StoreError(
                f"{len(self.known)} videos cannot be read, more than data.bad_budget="
                f"{self.budget}; saved after step {step}: {self.mend(self.known)}, then run the "
                "same command again"
            )
