"""Timestamps of decoded frames: whether they increase, and where frames are missing."""

from __future__ import annotations

import heapq

from mme_core.io.rate import FrameRate

NO_PTS = -(2**63)  # FFmpeg's value for a missing timestamp

# A video's warning. The timestamps of one frame may then be those of another frame too.
UNORDERED = "timestamps are missing or do not increase"

_REORDERING = 4  # frames by which a broken packet's place in the output order is uncertain
_JUMP = 16  # a step back of more frames than this is a restarted clock, not reordering


class Timeline:
    """Takes the timestamps of frames in the decoder's output order and detects gaps.

    A gap is reported at the pts of a broken packet, and where a constant frame rate skips at least
    one frame. A variable rate is recognised in the first frames and never counts as a gap.

    Timestamps that go backwards are normally no gap. There are two exceptions. The timestamps were
    in order until a packet was broken: a decoder that lost a key frame may return later frames
    first. The timestamps were in order and jump far back: another recording begins there.
    """

    def __init__(self, reliable: bool) -> None:
        self.increasing = reliable  # whether all timestamps so far increase
        self.gaps = 0
        self.rate = FrameRate()
        self.last: int | None = None
        self._lost: list[int] = []  # heap of broken packets' pts
        self._uncertain = 0  # number of next frames that may follow a broken packet without pts
        self._ordered = False  # whether the timestamps were in order until a packet was broken
        self._regular = 0  # number of steps that were no gap
        self._shortest, self._longest = float("inf"), 0

    def lose(self, pts: int | None, reorders: bool) -> None:
        """Records a broken packet. `reorders`: whether the codec reorders frames."""
        self._ordered |= self.increasing and self._regular > _REORDERING
        if self.increasing and pts is not None:
            heapq.heappush(self._lost, pts)
        else:
            self._uncertain = 1 + _REORDERING * reorders

    def step(self, pts: int) -> bool:
        """Takes the next frame's pts. Returns False where frames are missing before it."""
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
        """Whether this step back is a restarted clock rather than reordered frames."""
        return self.increasing and self._regular > 0 and -step > _JUMP * self._longest

    def _skips(self, step: int) -> bool:
        """Whether this step skips a frame of a constant rate. Many skips mean a variable rate."""
        constant = self._longest <= 1.25 * self._shortest
        if constant and self._regular >= 10 * (self.gaps + 1) and step >= 1.75 * self._longest:
            return True
        self._regular += 1
        self._shortest, self._longest = min(self._shortest, step), max(self._longest, step)
        return False
