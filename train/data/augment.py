"""Training augmentation of labelled clips: one draw for all frames of a clip.

The crop comes before RandAugment (VideoMAE does it after): the same operations on fewer pixels.
A loader's worker crops and draws (`crop_clip`). What was drawn is done there too (`augment_clip`),
or on the device (`train.data.device_augment`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP, RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing

from mme_core.clips.views import resize
from mme_core.errors import UsageError

FILL = (124, 116, 104)  # ImageNet's mean, where an operation uncovers pixels
INTERPOLATION = Image.Resampling.BICUBIC  # of the operations that move pixels
PILLOW: Mapping[str, Any] = NAME_TO_OP  # timm's name of an operation -> its function of an image
RATIO = (3 / 4, 4 / 3)  # aspect of a random crop


class Operation(NamedTuple):
    """One operation of RandAugment: timm's name, and the arguments of timm's function."""

    name: str
    arguments: tuple[float, ...]


@dataclass(frozen=True)
class Drawn:
    """What is done to all frames of a crop: the operations in their order, then the flip."""

    operations: tuple[Operation, ...]
    flip: bool


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


def crop_clip(
    clip_THW3: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    flip: bool,
    rand_augment: str | None,
) -> tuple[np.ndarray, Drawn]:
    """A random resized crop, uint8 [T, H, W, 3] → [T, size, size, 3], and what to do to it.

    rand_augment is timm's description, such as `rand-m7-n4-mstd0.5-inc1`, or None.
    """
    height, width = clip_THW3.shape[1:3]
    top, left, h, w = random_resized_crop_box(height, width, scale, rng)
    crop = resize(clip_THW3[:, top : top + h, left : left + w], size, size)
    operations: tuple[Operation, ...] = ()
    if rand_augment:
        operations = draw_operations(rand_augment, int(rng.integers(2**31)))
    return crop, Drawn(operations, flip and rng.random() < 0.5)


def augment_clip(clip_THW3: np.ndarray, drawn: Drawn) -> np.ndarray:
    """What was drawn, done to each frame by timm's functions; uint8 [T, H, W, 3]."""
    if drawn.operations:
        clip_THW3 = np.stack([_augment_frame(frame, drawn.operations) for frame in clip_THW3])
    return clip_THW3[:, :, ::-1] if drawn.flip else clip_THW3


def _augment_frame(frame_HW3: np.ndarray, operations: tuple[Operation, ...]) -> np.ndarray:
    image = Image.fromarray(frame_HW3)
    for name, arguments in operations:
        image = PILLOW[name](image, *arguments, fillcolor=FILL, resample=INTERPOLATION)
    return np.asarray(image)


def draw_operations(description: str, seed: int) -> tuple[Operation, ...]:
    """What timm's RandAugment of this description draws from this seed."""
    with seeded(seed):
        return rand_augment(description)(())


@lru_cache
def rand_augment(description: str) -> RandAugment:
    """timm's transform for a tuple in place of an image: each operation adds itself to the tuple.

    Raises UsageError for a description that timm does not read.
    """
    hparams = {"translate_pct": 0.45, "img_mean": FILL, "interpolation": INTERPOLATION}
    try:
        transform = rand_augment_transform(description, hparams)
    except (AssertionError, ValueError) as error:
        raise UsageError(
            f"augment.rand_augment={description}: timm cannot read it; an example is "
            "rand-m7-n4-mstd0.5-inc1"
        ) from error
    for operation in transform.ops:
        operation.aug_fn = partial(_record, operation.name)
    return transform


def _record(
    name: str, drawn: tuple[Operation, ...], *arguments: float, **_: Any
) -> tuple[Operation, ...]:
    if name.startswith("Posterize"):  # of 0 bits, a black image: Pillow refuses that
        arguments = (max(arguments[0], 1),)
    return (*drawn, Operation(name, arguments))


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
