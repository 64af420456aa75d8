"""Timestamps of decoded frames: do they increase, and is a frame missing between two of them?"""

from __future__ import annotations

import heapq

from mme_core.io.rate import FrameRate

NO_PTS = -(2**63)  # FFmpeg's mark of a frame without a timestamp

_REORDERING = 4  # frames that a broken packet's place in the output order is uncertain by
_JUMP = 16  # steps; a clock set back by more than any reordering was started anew


class Timeline:
    """Takes timestamps as they come.

    A frame is missing where a broken packet's pts lies, or where a rate that was constant skips at
    least one frame. A variable rate shows itself in the first frames and is never called a gap.
    Timestamps that go backwards are ordinary, but not where they were in order until a packet was
    broken: a decoder that lost a key frame may put out later frames first. Nor are they where a
    clock that was in order is set far back: there another recording begins.
    """

    def __init__(self, reliable: bool) -> None:
        self.increasing = reliable  # as far as seen
        self.gaps = 0
        self.rate = FrameRate()
        self.last: int | None = None
        self._lost: list[int] = []  # heap of broken packets' pts
        self._uncertain = 0  # frames to come that may follow a broken packet without pts
        self._ordered = False  # were the timestamps in order until a packet was broken?
        self._regular = 0  # steps seen that were no gap
        self._shortest, self._longest = float("inf"), 0

    def lose(self, pts: int | None, reorders: bool) -> None:
        """A packet was broken."""
        self._ordered |= self.increasing and self._regular > _REORDERING
        if self.increasing and pts is not None:
            heapq.heappush(self._lost, pts)
        else:
            self._uncertain = 1 + _REORDERING * reorders

    def step(self, pts: int) -> bool:
        """Takes the next frame's pts; False where frames are missing before it."""
        gap = self._uncertain > 0
        self._uncertain = max(self._uncertain - 1, 0)
        if pts == NO_PTS:
            self.increasing = False
        elif self.last is not None and pts <= self.last:
            gap |= self._starts_anew(pts - self.last)
            self.increasing = False
            if self._ordered:
                gap, self._uncertain = True, 1  # the next frame may jump ahead again
        if self.increasing:
            gap |= self._has_lost_before(pts)
            gap |= self.last is not None and self._skips(pts - self.last)
        if self.last is None:
            gap = False
        else:
            self.rate.add(None if NO_PTS in (pts, self.last) else pts - self.last)
        self.last = pts
        self.gaps += gap
        return not gap

    def _has_lost_before(self, pts: int) -> bool:
        lost = False
        while self._lost and self._lost[0] < pts:
            heapq.heappop(self._lost)
            lost = True
        return lost

    def _starts_anew(self, step: int) -> bool:
        """Is this step back a clock that was set back, and not the order of the decoder?"""
        return self.increasing and self._regular > 0 and -step > _JUMP * self._longest

    def _skips(self, step: int) -> bool:
        """Is this step a hole in a constant rate? Holes are rare, else the rate is variable."""
        constant = self._longest <= 1.25 * self._shortest
        if constant and self._regular >= 10 * (self.gaps + 1) and step >= 1.75 * self._longest:
            return True
        self._regular += 1
        self._shortest, self._longest = min(self._shortest, step), max(self._longest, step)
        return False
