"""Training augmentation of labelled clips: one draw for all frames of a clip.

The crop comes before RandAugment (VideoMAE does it after): the same operations on fewer pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing

from mme_core.clips.views import resize
from mme_core.errors import UsageError

FILL = (124, 116, 104)  # ImageNet's mean, where an operation uncovers pixels
RATIO = (3 / 4, 4 / 3)  # aspect of a random crop


def random_resized_crop_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop: area uniform in `scale`, log aspect in `RATIO`.

    Ten draws; when none fits, the largest centred crop whose aspect is allowed.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    aspect = min(max(width / height, RATIO[0]), RATIO[1])
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    return (height - h) // 2, (width - w) // 2, h, w


def augment_clip(
    clip_THW3: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    flip: bool,
    rand_augment: str | None,
) -> np.ndarray:
    """One training view: uint8 [T, H, W, 3] → [T, size, size, 3].

    rand_augment is timm's description, such as `rand-m7-n4-mstd0.5-inc1`, or None.
    """
    height, width = clip_THW3.shape[1:3]
    top, left, h, w = random_resized_crop_box(height, width, scale, rng)
    clip = resize(clip_THW3[:, top : top + h, left : left + w], size, size)
    if rand_augment:
        clip = rand_augment_clip(clip, rand_augment, int(rng.integers(2**31)))
    if flip and rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    return np.ascontiguousarray(clip)


def rand_augment_clip(clip_THW3: np.ndarray, description: str, seed: int) -> np.ndarray:
    """RandAugment with the same operations and magnitudes on every frame, uint8 [T, H, W, 3]."""
    transform = rand_augment(description)
    frames = []
    for frame in clip_THW3:
        with seeded(seed):
            frames.append(np.asarray(transform(Image.fromarray(frame))))
    return np.stack(frames)


@lru_cache
def rand_augment(description: str) -> RandAugment:
    """timm's transform; raises UsageError for a description that timm does not read."""
    hparams = {"translate_pct": 0.45, "img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    try:
        return rand_augment_transform(description, hparams)
    except (AssertionError, ValueError) as error:
        raise UsageError(
            f"augment.rand_augment={description}: timm cannot read it; an example is "
            "rand-m7-n4-mstd0.5-inc1"
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """timm draws from the global generators of `random` and numpy: set them, then restore."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def erase(clip_BCTHW: torch.Tensor, probability: float) -> torch.Tensor:
    """Random erasing in place: one box for all frames of a clip, filled with normal noise.

    clip_BCTHW: float, normalised. timm's rule (area 0.02–1/3) on the clip seen as one image of
    C · T channels.
    """
    eraser = RandomErasing(probability, mode="pixel", device=clip_BCTHW.device)
    for clip in clip_BCTHW:
        eraser(clip.flatten(0, 1))
    return clip_BCTHW
