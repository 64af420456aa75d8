import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from train.data.augment import (
    FILL,
    INTERPOLATION,
    Drawn,
    Operation,
    augment_clip,
    crop_clip,
    draw_operations,
    erase,
    random_resized_crop_box,
    seeded,
)

POLICY = "rand-m7-n4-mstd0.5-inc1"


def test_random_crop_keeps_area_and_aspect():
    rng = np.random.default_rng(1)
    boxes = np.array([random_resized_crop_box(240, 320, (0.25, 1.0), rng) for _ in range(500)])
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= 240).all() and (left + w <= 320).all()
    share, aspect = h * w / (240 * 320), w / h
    assert share.min() > 0.24 and share.max() > 0.9
    assert aspect.min() > 0.73 and aspect.max() < 1.36


def test_random_crop_of_an_extreme_frame_is_centred():
    # 10×1000: no crop of 99 % of the area has an aspect up to 4/3; then the largest, 10 × 13
    rng = np.random.default_rng(0)
    assert random_resized_crop_box(10, 1000, (0.99, 1.0), rng) == (0, 493, 10, 13)
    rng = np.random.default_rng(0)
    assert random_resized_crop_box(1000, 10, (0.99, 1.0), rng) == (493, 0, 13, 10)


@pytest.mark.parametrize("description", [POLICY, "rand-m9-mstd0.5", "rand-n3-t3a"])
def test_the_draws_and_frames_are_timms(description):
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    hparams = {"translate_pct": 0.45, "img_mean": FILL, "interpolation": INTERPOLATION}
    transform = rand_augment_transform(description, hparams)
    changed = 0
    for seed in range(30):
        seen = augment_clip(clip, Drawn(draw_operations(description, seed), flip=False))
        for frame, got in zip(clip, seen):
            with seeded(seed):
                assert (got == np.asarray(transform(Image.fromarray(frame)))).all()
        changed += (seen != clip).any()
    assert changed > 15


def test_drawing_leaves_the_global_generators_alone():
    np.random.seed(3)
    random.seed(3)
    before = np.random.get_state()[1].copy(), random.getstate()
    draw_operations(POLICY, 5)
    assert (np.random.get_state()[1] == before[0]).all() and random.getstate() == before[1]


def test_posterize_keeps_at_least_one_bit():
    drawn = {
        operation for seed in range(40) for operation in draw_operations("rand-m10-inc1", seed)
    }
    assert ("PosterizeIncreasing", (1,)) in drawn
    assert all(arguments[0] for name, arguments in drawn if name == "PosterizeIncreasing")


def test_shifts_reach_45_percent_and_fill_with_imagenets_mean():
    drawn = {one for seed in range(60) for one in draw_operations("rand-m10-p1-inc1", seed)}
    assert {share for name, share in drawn if name == "TranslateXRel"} == {(0.45,), (-0.45,)}
    shifted = augment_clip(
        np.zeros((1, 20, 20, 3), np.uint8), Drawn((Operation("TranslateXRel", (0.45,)),), False)
    )
    assert (shifted[0, :, 11:] == (124, 116, 104)).all() and not shifted[0, :, :11].any()


def test_a_crop_and_its_draws_are_a_function_of_the_generator():
    clip = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)
    options = {"scale": (0.3, 1.0), "flip": True, "rand_augment": POLICY}
    a, b = (crop_clip(clip, 32, np.random.default_rng(7), **options) for _ in range(2))
    assert a[0].shape == (4, 32, 32, 3) and (a[0] == b[0]).all() and a[1] == b[1]


def halves(flip, seeds):
    """A clip that is dark on the left, cropped and augmented once for each seed."""
    clip = np.zeros((2, 32, 32, 3), np.uint8)
    clip[:, :, 16:] = 200
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        yield augment_clip(*crop_clip(clip, 16, rng, scale=(0.9, 1), flip=flip, rand_augment=None))


def test_without_flip_left_stays_left():
    assert all(seen[0, 8, 0, 0] < seen[0, 8, -1, 0] for seen in halves(False, 20))


def test_half_of_the_clips_are_flipped():
    flipped = sum(seen[0, 8, 0, 0] > seen[0, 8, -1, 0] for seen in halves(True, 100))
    assert 30 < flipped < 70


def test_erasing_takes_one_box_through_all_frames():
    torch.manual_seed(0)
    clip = erase(torch.zeros(3, 3, 4, 24, 24), 1.0)
    for one in clip:
        touched = (one != 0).flatten(0, 1)
        assert (touched == touched[0]).all()
        area = touched[0].float().mean()
        assert 0.01 < area < 0.36
    assert clip[0][0, 0][clip[0][0, 0] != 0].unique().numel() > 3  # noise in every pixel
