"""Where the random numbers of clips come from.

Every draw is a function of a few whole numbers, so that it does not depend on the number of
processes, on their order, or on a resume.
"""

from __future__ import annotations

import numpy as np

_ORDER, _SAMPLE, _STAND_IN = 1, 2, 3  # first word of a seed: the kinds of draws are unrelated


def order_rng(seed: int, epoch: int) -> np.random.Generator:
    """The generator that orders the videos of an epoch."""
    return np.random.default_rng([_ORDER, seed, epoch])


def sample_rng(seed: int, epoch: int, video: int) -> np.random.Generator:
    """The generator that draws the clip of a video in an epoch."""
    return np.random.default_rng([_SAMPLE, seed, epoch, video])


def stand_in_rng(seed: int, epoch: int, video: int) -> np.random.Generator:
    """The generator that orders the videos that stand in for one that cannot be read."""
    return np.random.default_rng([_STAND_IN, seed, epoch, video])
