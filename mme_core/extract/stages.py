"""Measures how the time of an extraction is spread over its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

# {name of a stage: what it does}, in the order of the work
STAGES = {
    "decode": "read and decode the video",
    "flow": "optical flow, or a point tracker",
    "tracks": "luma, camera motion, tracks and HOG",
    "frames": "coding of sampled frames",
    "writing": "compress and write the targets",
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Stopwatch:
    """Measures the seconds of each stage: `seconds` is {name of STAGES: seconds}.

    A stage may run inside another one, such as the decoder that flow asks for more frames. Then its
    time counts for it alone.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._running: str | None = None
        self._since = 0.0

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """`with stopwatch.of(stage):` counts the time of the block. Do not yield inside of it."""
        outer = self._running
        self._switch(stage)
        try:
            yield
        finally:
            self._switch(outer)

    def calls(self, stage: str, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Returns a function that does the same, and whose time counts for the stage."""

        def timed(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with self.of(stage):
                return function(*args, **kwargs)

        return timed

    def each(self, stage: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yields the items. Only the time in which they are made counts for the stage."""
        following = self.calls(stage, iter(items).__next__)
        while True:
            try:
                item = following()
            except StopIteration:
                return
            yield item

    def _switch(self, stage: str | None) -> None:
        now = time.perf_counter()
        if self._running is not None:
            self.seconds[self._running] += now - self._since
        self._running, self._since = stage, now
