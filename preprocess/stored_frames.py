"""The frames that a store has of a video, to be copied into another store as they are."""

from __future__ import annotations

import dataclasses

from mme_core.spec import TUBELET, TargetSpec
from mme_core.store.target_store import TargetStore

_AT_ONCE = 16  # tubelets that are read together, which bounds memory


class StoredFrames:
    """Finds the coded frame of a raw frame. Raises StoreError where the store is damaged."""

    def __init__(self, store: TargetStore, video: int) -> None:
        """video: its row in the store's table. The store must have frames."""
        self._video, self._stride = store.open_video(video), store.spec.stride
        self._hop = TUBELET * store.spec.stride // store.spec.clip_step
        self._start, self._frames = -1, [b""]

    def __call__(self, number: int) -> bytes | None:
        """Returns raw frame `number`, coded; None where no tubelet samples this frame."""
        for place in range(TUBELET):
            tubelet, rest = divmod(number - place * self._stride, self._hop)
            if rest == 0 and 0 <= tubelet < self._video.high - self._video.low:
                start = tubelet - tubelet % _AT_ONCE
                self._read(start)
                return self._frames[TUBELET * (tubelet - start) + place]
        return None

    def _read(self, start: int) -> None:
        if start == self._start:
            return
        low = self._video.low + start
        high = min(low + _AT_ONCE, self._video.high)
        part = dataclasses.replace(self._video, low=low, high=high)
        self._start, self._frames = start, [coded.tobytes() for coded in part.frames()]


def can_be_copied(source: TargetSpec, wanted: TargetSpec) -> bool:
    """Whether the frames of a store are those that another specification with its canvas needs."""
    same_quality = source.frames != "jpeg" or source.jpeg_quality == wanted.jpeg_quality
    return source.frames == wanted.frames != "none" and same_quality
