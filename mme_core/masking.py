"""Masks of a clip's tokens: bool [n, h, w] over tubelets, rows and columns, True = hidden.

Every kind of mask hides exactly `hidden_count` tokens, so the clips of a batch can be stacked.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mme_core.errors import UsageError

Shape = tuple[int, int, int]  # tubelets, rows and columns of a clip's tokens

# BEiT's blocks, which MaskFeat extends in time: area as a share of the image, and aspect ratio.
CUBE_AREA = (0.08, 0.5)
CUBE_ASPECT = (0.3, 1 / 0.3)

FUTURE_SEEN = 0.05  # share of the patches of a later tubelet that a mask of the future leaves


def hidden_per_tubelet(shape: Shape, ratio: float) -> int:
    """Returns the number of hidden patches of one tubelet: round(ratio · h · w).

    Raises UsageError when nothing would be hidden, or nothing visible.
    """
    _, h, w = shape
    if not 0 <= ratio <= 1:
        raise UsageError(f"ratio={ratio} must be between 0 and 1")
    hidden = round(ratio * h * w)
    if not 0 < hidden < h * w:
        raise UsageError(
            f"ratio={ratio} hides {hidden} of {h * w} patches; at least one must be hidden "
            "and one visible"
        )
    return hidden


def hidden_count(shape: Shape, ratio: float) -> int:
    """Returns the number of hidden tokens of a clip, which is the same for every kind of mask."""
    return shape[0] * hidden_per_tubelet(shape, ratio)


def tube_mask(shape: Shape, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hides the same random patches in every tubelet (VideoMAE)."""
    _, h, w = shape
    visible = rng.permutation(h * w)[hidden_per_tubelet(shape, ratio) :]
    return _tubes(visible, shape)


def random_mask(shape: Shape, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hides random tokens, independent of position and time."""
    mask = np.zeros(math.prod(shape), bool)
    mask[rng.permutation(mask.size)[: hidden_count(shape, ratio)]] = True
    return mask.reshape(shape)


def cube_mask(shape: Shape, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hides boxes of random position, area, aspect ratio and duration (MaskFeat's cube).

    Only part of the last box is hidden, so the number of hidden tokens is exact.
    """
    mask = np.zeros(shape, bool)
    missing = hidden_count(shape, ratio)
    while missing:
        box = np.zeros(shape, bool)
        box[_random_box(shape, rng)] = True
        fresh = np.flatnonzero(box & ~mask)
        if len(fresh) > missing:
            fresh = rng.permutation(fresh)[:missing]
        mask.flat[fresh] = True
        missing -= len(fresh)
    return mask


def future_mask(shape: Shape, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hides most of the later tubelets, and as few of the earlier ones as the ratio asks for.

    The last tubelets are hidden but for FUTURE_SEEN of their patches, which say where things went.
    One tubelet in between may be hidden in part. Each tubelet has its own visible patches.
    Predicting the future from the past is RVM's task (CVPR 2026).
    """
    n, h, w = shape
    most = max(min(round((1 - FUTURE_SEEN) * h * w), h * w - 1), hidden_per_tubelet(shape, ratio))
    mask = np.zeros((n, h * w), bool)
    missing = hidden_count(shape, ratio)
    for tubelet in range(n - 1, -1, -1):
        hidden = min(most, missing)
        mask[tubelet, rng.permutation(h * w)[:hidden]] = True
        missing -= hidden
    return mask.reshape(shape)


def motion_tube_mask(
    shape: Shape, ratio: float, rng: np.random.Generator, motion_hw: np.ndarray
) -> np.ndarray:
    """Hides tubes; half of the visible tubes come from the quarter of patches that move most.

    The other visible tubes come from the other three quarters. Where a low ratio leaves more than
    half of the patches visible, the whole quarter is visible.

    motion_hw  [h, w], mean |Δp| of each patch (without the camera's motion where it is known)
    """
    _, h, w = shape
    if motion_hw.shape != (h, w):
        raise UsageError(f"the motion map has shape {motion_hw.shape}, the clip {(h, w)} patches")
    order, picks = motion_draws(shape, ratio, rng)
    order = order[np.argsort(-motion_hw.ravel()[order], kind="stable")]
    return _tubes(order[picks], shape)


def motion_draws(
    shape: Shape, ratio: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The random part of a `motion_tube_mask`, which does not depend on the motion.

    Returns order int64 [h·w], all patches: those that move equally (a static video) are taken in
    this order; and picks int64 [visible], places of the visible patches in the order of motion.
    """
    _, h, w = shape
    visible = h * w - hidden_per_tubelet(shape, ratio)
    quarter = max(h * w // 4, 1)
    order = rng.permutation(h * w)
    moving = min(visible // 2, quarter)
    chosen = rng.permutation(quarter)[:moving]
    others = quarter + rng.permutation(h * w - quarter)[: visible - moving]
    return order, np.concatenate([chosen, others])


MASKS: dict[str, Callable[..., np.ndarray]] = {
    "tube": tube_mask,
    "cube": cube_mask,
    "random": random_mask,
    "future": future_mask,
    "motion": motion_tube_mask,  # also takes the motion map
}


def make_mask(
    kind: str,
    shape: Shape,
    ratio: float,
    rng: np.random.Generator,
    motion_hw: np.ndarray | None = None,
) -> np.ndarray:
    """A mask bool [n, h, w] of one of the kinds in MASKS; `motion` needs motion_hw [h, w].

    Raises UsageError for an unknown kind, a ratio out of range, or a missing motion map.
    """
    if kind not in MASKS:
        raise UsageError(f"kind={kind} is not one of {', '.join(MASKS)}")
    if kind != "motion":
        return MASKS[kind](shape, ratio, rng)
    if motion_hw is None:
        raise UsageError("kind=motion needs motion_hw, the motion of the clip's patches")
    return motion_tube_mask(shape, ratio, rng, motion_hw)


def _tubes(visible: np.ndarray, shape: Shape) -> np.ndarray:
    n, h, w = shape
    mask = np.ones(h * w, bool)
    mask[visible] = False
    return np.repeat(mask.reshape(1, h, w), n, axis=0)


def _random_box(shape: Shape, rng: np.random.Generator) -> tuple[slice, slice, slice]:
    n, h, w = shape
    area = rng.uniform(*CUBE_AREA) * h * w
    aspect = math.exp(rng.uniform(*np.log(CUBE_ASPECT)))
    size = (
        int(rng.integers(1, n + 1)),
        min(max(round(math.sqrt(area * aspect)), 1), h),
        min(max(round(math.sqrt(area / aspect)), 1), w),
    )
    starts = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(shape, size)]
    time, rows, columns = (slice(start, start + part) for start, part in zip(starts, size))
    return time, rows, columns
