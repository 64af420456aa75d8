"""Frame rate measured from timestamps. The timestamps may pause, jump or restart."""

from __future__ import annotations

from collections import Counter

_LONG = 4  # a step longer than this number of medians is a pause or a jump
_ORDERED = 0.9  # timestamps are unusable where a smaller share of the steps goes forward
_DISTINCT = 10_000  # number of different step lengths to remember; it limits memory


class FrameRate:
    """Collects the differences between the timestamps of consecutive frames."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self._unusable = 0  # number of steps that go backwards or are unknown

    def add(self, step: int | None) -> None:
        """Adds a step in units of the time base, or None where a timestamp is missing."""
        if step is None or step <= 0 or (len(self._steps) >= _DISTINCT and step not in self._steps):
            self._unusable += 1
        else:
            self._steps[step] += 1

    def measure(self, time_base: float) -> float:
        """Returns frames per second, ignoring pauses and jumps; 0 for unusable timestamps.

        time_base  seconds per unit of a step
        """
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
        raise ValueError("no step was added, so there is no median")
