"""Clips of a larger frame stride than the store's: which stored tubelets and frames they need.

At speed m a clip's frames are m · spec.stride raw frames apart, and its tubelets are every
m · spec.clip_step-th stored tubelet. The stored trajectories stay exact: they follow raw frames
from a tubelet's first frame on, whatever the stride. A frame's number counts the stored frames of
a video, two of each tubelet.
"""

from __future__ import annotations

import numpy as np

from mme_core.spec import TUBELET, TargetSpec


def second_frame(spec: TargetSpec, speed: int) -> tuple[int, int]:
    """Where the second frame of a clip's tubelet is stored: (tubelets later, 0 or 1 in it)."""
    assert spec.hop is not None  # TargetSpec fills it in
    before, rest = divmod((speed - 1) * spec.stride, spec.hop)
    return (before, 1) if rest == 0 else (speed * spec.stride // spec.hop, 0)


def span(spec: TargetSpec, tubelets: int, speed: int) -> int:
    """Stored tubelets from the first to the last one that a clip reads."""
    return (tubelets - 1) * speed * spec.clip_step + second_frame(spec, speed)[0] + 1


def frame_numbers(spec: TargetSpec, tubelets: int, speed: int, left: int) -> np.ndarray:
    """Numbers of a clip's frames from its first stored tubelet on, without a short video's padding.

    left  stored tubelets of the video from the clip's first one on
    """
    later, member = second_frame(spec, speed)
    first = np.arange(tubelets) * speed * spec.clip_step
    first = first[first < left]
    second = np.minimum(TUBELET * (first + later) + member, TUBELET * left - 1)
    return np.stack([TUBELET * first, second], axis=1).ravel()
