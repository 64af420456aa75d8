"""Flow by a function that takes all frames of a run at once, such as a network on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from mme_core.canvas import Canvas
from mme_core.extract.ahead import Ahead, region_images
from mme_core.extract.flow import FlowOfFrames
from mme_core.io.frame import Frame
from mme_core.spec import TUBELET, TargetSpec

LONGEST = 16  # frame pairs of a run, which bounds memory


class FlowRuns:
    """A flow function (two images in, flow out) that has computed its answers in advance.

    `watch` looks ahead in the video and computes the flow of the next run: consecutive frame pairs
    that tubelets need, or all, without a gap. Calls must then ask for these pairs in the order of
    the video; with spec.check they ask for what tubelets need first forwards and then backwards.
    """

    def __init__(self, flow: FlowOfFrames, spec: TargetSpec, *, every_pair: bool = False) -> None:
        """every_pair: flow is also asked for where no tubelet needs it."""
        self._flow, self._spec, self._every_pair = flow, spec, every_pair
        self._hop = TUBELET * spec.stride // spec.clip_step
        self._answers = deque[np.ndarray]()

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns the next flow; the images only say that it is asked for."""
        return self._answers.popleft()

    def watch(self, frames: Iterator[Frame], canvas: Canvas) -> Iterator[Frame]:
        """Yields the frames, and computes flow before the first frame of each run."""
        ahead = Ahead(frames)
        last = -1  # number of the last frame of the run
        for frame in ahead:
            if frame.number >= last and self._is_asked(frame.number):
                run = self._run(frame, ahead)
                last = run[-1].number
                if len(run) > 1:
                    self._compute(run[0].number, region_images(run, canvas))
            yield frame

    def _is_needed(self, number: int) -> bool:
        """Whether a tubelet needs the flow from this frame to the next."""
        return number % self._hop < self._spec.length

    def _is_asked(self, number: int) -> bool:
        return self._every_pair or self._is_needed(number)

    def _run(self, first: Frame, ahead: Ahead) -> list[Frame]:
        run = [first]
        while len(run) <= LONGEST and self._is_asked(run[-1].number):
            following = ahead.see(len(run))[len(run) - 1 :]
            if not following or not following[0].joined:
                break
            run += following
        return run

    def _compute(self, first: int, frames_TCHW: np.ndarray) -> None:
        """first: number of the first frame."""
        forwards = self._flow(frames_TCHW)
        if not self._spec.check:
            self._answers.extend(forwards)
            return
        backwards = self._flow(frames_TCHW[::-1].copy())[::-1]
        for number, (there, back) in enumerate(zip(forwards, backwards), first):
            self._answers.extend([there, back] if self._is_needed(number) else [there])
