"""What is drawn for clips, and where the random numbers come from.

Every draw is a function of a few whole numbers, so that it does not depend on the number of
processes, on their order, or on a resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mme_core.clips.geometry import View

# The first word of a seed: the kinds of draws are unrelated.
_ORDER, _SAMPLE, _STAND_IN, _STORE = 1, 2, 3, 4


def order_rng(seed: int, epoch: int) -> np.random.Generator:
    """The generator that orders the videos of an epoch."""
    return np.random.default_rng([_ORDER, seed, epoch])


def sample_rng(seed: int, epoch: int, video: int) -> np.random.Generator:
    """The generator that draws the clip of a video in an epoch."""
    return np.random.default_rng([_SAMPLE, seed, epoch, video])


def stand_in_rng(seed: int, epoch: int, video: int) -> np.random.Generator:
    """The generator that orders the videos that stand in for one that cannot be read."""
    return np.random.default_rng([_STAND_IN, seed, epoch, video])


def store_rng(seed: int, store: int, number: int) -> np.random.Generator:
    """The generator that orders pass `number` through one of several stores."""
    return np.random.default_rng([_STORE, seed, store, number])


@dataclass(frozen=True)
class Draw:
    """What is drawn for the crops of one window.

    video, start  row of the store's table, first tubelet
    views         a crop of the canvas for each clip
    masks         {name: array} for each clip: "mask" bool [n·h·w]; or "order" and "picks" of
                  `mme_core.masking.motion_draws`, where the mask needs the motion
    speed         frame stride as a multiple of the store's
    """

    video: int
    start: int
    views: tuple[View, ...]
    masks: tuple[dict[str, np.ndarray], ...]
    speed: int = 1
