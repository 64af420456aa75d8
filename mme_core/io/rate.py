"""Frames a second, measured from timestamps that may pause, jump or start anew."""

from __future__ import annotations

from collections import Counter

_LONG = 4  # a step longer than so many medians is a pause or a jump
_ORDERED = 0.9  # share of the steps that must go forward, else the timestamps mean nothing
_DISTINCT = 10_000  # steps of different length to remember; bounds memory


class FrameRate:
    """Takes the steps between the timestamps of consecutive frames."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self._unusable = 0  # steps that go back or are not known

    def add(self, step: int | None) -> None:
        """A step in units of the time base; None where a timestamp is missing."""
        if step is None or step <= 0 or (len(self._steps) >= _DISTINCT and step not in self._steps):
            self._unusable += 1
        else:
            self._steps[step] += 1

    def measure(self, time_base: float) -> float:
        """Frames a second, without pauses and jumps; 0 where the timestamps do not tell."""
        total = self._steps.total()
        if not total or not time_base or total < _ORDERED * (total + self._unusable):
            return 0.0
        longest = _LONG * self._median()
        kept = {step: count for step, count in self._steps.items() if step <= longest}
        duration = sum(step * count for step, count in kept.items())
        return sum(kept.values()) / (duration * time_base)

    def _median(self) -> int:
        left = (self._steps.total() + 1) // 2
        for step in sorted(self._steps):
            left -= self._steps[step]
            if left <= 0:
                return step
        raise ValueError("the median of no step")
