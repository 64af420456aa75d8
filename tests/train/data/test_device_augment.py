"""What the device makes of a clip, beside what timm makes of its frames with Pillow."""

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment

from mme_core.datasets import demo
from train.data.augment import (
    FILL,
    INTERPOLATION,
    Drawn,
    Operation,
    augment_clip,
    crop_clip,
    seeded,
)
from train.data.device_augment import OPERATIONS, augment, augment_batch, augments_on_device

# Largest and mean difference in levels; docs/measurements/downstream.md has what was measured.
EXACT, NEARLY, ROUNDED, CUBIC = (0, 0), (1, 0.001), (1, 0.6), (10, 1.0)
TOLERANCES = {
    "Equalize": EXACT,
    "Invert": EXACT,
    "Posterize": EXACT,
    "PosterizeIncreasing": EXACT,
    "Solarize": EXACT,
    "SolarizeIncreasing": EXACT,
    "SolarizeAdd": EXACT,
    "Brightness": EXACT,
    "BrightnessIncreasing": EXACT,
    "Sharpness": NEARLY,
    "SharpnessIncreasing": NEARLY,
    "AutoContrast": ROUNDED,
    "Color": ROUNDED,
    "ColorIncreasing": ROUNDED,
    "Contrast": ROUNDED,
    "ContrastIncreasing": ROUNDED,
    "Desaturate": ROUNDED,
    "Rotate": CUBIC,
    "ShearX": CUBIC,
    "ShearY": CUBIC,
    "TranslateXRel": CUBIC,
    "TranslateYRel": CUBIC,
    "GaussianBlur": (40, 1.5),
}


@pytest.fixture(scope="module")
def clip():
    """Three frames of textures with edges: uint8 [3, 96, 80, 3]."""
    frames = np.stack(list(islice(demo.render(4, seed=0), 0, 41, 20)))
    return np.ascontiguousarray(frames[:, 16:112, 40:120])


def on_device(clip, *operations, flip=False):
    return augment(torch.from_numpy(clip), Drawn(operations, flip)).numpy()


def difference(one, other):
    return np.abs(one.astype(int) - other)


@pytest.mark.parametrize("name", TOLERANCES)
def test_operations_equal_pillows_within_their_tolerance(clip, name):
    largest, mean = TOLERANCES[name]
    hparams = {"img_mean": FILL, "interpolation": INTERPOLATION}
    for seed, magnitude in enumerate((2.5, 5, 7, 9.9)):
        op = auto_augment.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=hparams)
        with seeded(seed):
            arguments = op.level_fn(magnitude, op.hparams) if op.level_fn else ()
        frames = [Image.fromarray(frame) for frame in clip]
        want = np.stack([np.asarray(op.aug_fn(frame, *arguments, **op.kwargs)) for frame in frames])
        got = difference(on_device(clip, Operation(name, arguments)), want)
        assert got.max() <= largest and got.mean() <= mean, (magnitude, got.max(), got.mean())


@pytest.mark.parametrize("name", ["", "3a", "3aw", "weights"])
@pytest.mark.parametrize("increasing", [False, True])
def test_all_that_timm_can_draw_is_known(name, increasing):
    assert set(auto_augment.rand_augment_choices(name, increasing)) <= set(OPERATIONS)


def test_each_frame_is_augmented_by_itself(clip):
    """Contrast, AutoContrast and Equalize measure a frame: the others must not matter."""
    clip = np.stack([clip[0], clip[1] // 3, clip[2]])
    for name in ("Contrast", "AutoContrast", "Equalize"):
        operation = Operation(name, (0.5,) if name == "Contrast" else ())
        alone = [on_device(frame[None], operation)[0] for frame in clip]
        assert (on_device(clip, operation) == np.stack(alone)).all()


def test_the_device_does_what_a_worker_does(clip):
    options = {"scale": (0.3, 1.0), "flip": True, "rand_augment": "rand-m7-n4-mstd0.5-inc1"}
    crops, drawn, wanted = [], [], []
    for seed in range(12):
        crop, one = crop_clip(clip, 64, np.random.default_rng(seed), **options)
        wanted.append(augment_clip(crop, one))
        crops.append(torch.from_numpy(crop))
        drawn.append(one)
    assert any(one.flip for one in drawn) and any(one.operations for one in drawn)
    before = torch.stack(crops)
    frames = before.clone()
    got = augment_batch(frames, drawn)
    assert got.dtype == torch.uint8 and torch.equal(frames, before)
    errors = difference(got.numpy(), np.stack(wanted)).reshape(12, -1).mean(1)
    # Equalize and Solarize can turn a difference of one level into a larger one.
    assert np.median(errors) < 1 and errors.max() < 4, errors


def test_solarize_can_spare_all_levels(clip):
    assert (on_device(clip, Operation("SolarizeIncreasing", (256,))) == clip).all()


def test_a_clip_without_anything_drawn_stays(clip):
    assert (on_device(clip) == clip).all()
    assert (on_device(clip, flip=True) == clip[:, :, ::-1]).all()


def test_where_augmentation_runs():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert not augments_on_device("auto", cpu) and augments_on_device("auto", cuda)
    assert augments_on_device("device", cpu) and not augments_on_device("workers", cuda)
