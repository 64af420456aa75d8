"""Counts and shows the videos of a run of stage 1."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from rich.console import Console

from mme_core.progress import Shown, clock
from preprocess.isolate import ShardResult
from preprocess.jobs import QUARANTINED, Outcome


class Display(Shown):
    """Counts and shows the processed videos, of finished shards and of those in progress."""

    def __init__(self, videos: int, console: Console) -> None:
        super().__init__(videos, console)
        self._videos, self._started = videos, time.monotonic()
        self._finished = (0, 0, 0)  # videos, frames, failed
        self._live: dict[int, tuple[int, int, int]] = {}
        self._show()  # a bar has a line from the start

    @property
    def seconds(self) -> float:
        """Since the start of the run."""
        return time.monotonic() - self._started

    @property
    def frames(self) -> int:
        """Number of decoded frames in the shards that this run finished."""
        return self._finished[1]

    def note(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Takes all outcomes so far of a shard that is being written.

        After a crash a shard is written again, so a video may have several outcomes.
        """
        self._live[number] = _count({row.id: row for row in outcomes}.values())
        self._show()

    def finish(self, result: ShardResult) -> None:
        """Takes the outcomes of a finished shard, in place of those noted before."""
        self._live.pop(result.number, None)
        self._finished = _add(self._finished, _count(result.outcomes))
        self._show()

    def line(self) -> str:
        """A line such as `12/36 videos · 210 frames/s · 1 failed · 0:42 left`."""
        videos, frames, failed = self._finished
        for count in self._live.values():
            videos, frames, failed = _add((videos, frames, failed), count)
        left = "?" if not videos else clock(self.seconds * (self._videos - videos) / videos)
        rate = frames / max(self.seconds, 1e-3)
        return (
            f"{videos}/{self._videos} videos · {rate:.0f} frames/s · {failed} failed · {left} left"
        )

    def _show(self) -> None:
        done = self._finished[0] + sum(count[0] for count in self._live.values())
        self.show(done, self.line())


def _count(outcomes: Collection[Outcome]) -> tuple[int, int, int]:
    """Numbers of videos, frames, and failed videos."""
    failed = sum(row.status == QUARANTINED for row in outcomes)
    return len(outcomes), sum(row.frames for row in outcomes), failed


def _add(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
