import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_targets import raw, tubelets

from mme_core.errors import UsageError
from mme_core.spec import TargetSpec
from mme_core.store.window import CodedWindow, Window, flip_points

ARRAYS = ("displacement", "hog", "valid", "points", "position", "shape", "frames", "pts")


def make_window(seed, n, hp, wp, spec):
    rng = np.random.default_rng(seed)
    displacement, hog = raw(rng, n, hp, wp, spec)
    side = spec.patch
    camera = np.eye(3) + rng.normal(0, 1, (n, spec.length, 3, 3)) * [
        [1e-2, 1e-2, 3],
        [1e-2, 1e-2, 3],
        [1e-5, 1e-5, 0],
    ]
    return Window(
        displacement=displacement,
        hog=hog,
        valid=rng.random((n, hp, wp, spec.points)) < 0.8,
        frames=rng.integers(0, 255, (2 * n, side * hp, side * wp, 3), np.uint8),
        homography=camera.astype(np.float32),
        pts=np.arange(2 * n).reshape(n, 2),
        spec=spec,
    )


@st.composite
def windows(draw):
    points, length = draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 6]))
    n, hp, wp = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    spec = TargetSpec(points=points, length=length)
    return make_window(draw(st.integers(0, 99)), n, hp, wp, spec)


@st.composite
def crops(draw):
    window = draw(windows())
    top, left = draw(st.integers(0, window.hp - 1)), draw(st.integers(0, window.wp - 1))
    height = draw(st.integers(1, window.hp - top))
    return window, (top, left, height, draw(st.integers(1, window.wp - left)))


def move(homography, points):
    """Moves (x, y) [..., 2] by homographies [n, L, 3, 3]. Returns float64 [n, L, ..., 2]."""
    ones = np.concatenate([points, np.ones_like(points[..., :1])], -1)
    moved = np.einsum("nlij,pj->nlpi", homography.astype(np.float64), ones.reshape(-1, 3))
    return moved[..., :2] / moved[..., 2:]


@settings(max_examples=30, deadline=None)
@given(windows())
def test_flip_twice_is_the_identity(window):
    twice = window.flip().flip()
    for name in ARRAYS:
        assert np.array_equal(getattr(twice, name), getattr(window, name)), name
    np.testing.assert_allclose(twice.homography, window.homography, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(windows())
def test_flip_mirrors_everything_about_one_axis(window):
    flipped = window.flip()
    right = window.wp * window.spec.patch - 1
    order = flip_points(window.spec.points)
    mirrored = window.points[:, :, ::-1, order] * [-1, 1] + [right, 0]
    np.testing.assert_allclose(flipped.points, mirrored, atol=1e-3)
    assert np.array_equal(flipped.frames, window.frames[:, :, ::-1])
    assert np.array_equal(flipped.hog, window.hog[:, :, ::-1, order, :, ::-1])
    assert np.array_equal(flipped.valid, window.valid[:, :, ::-1, order])
    some = np.array([[3.0, 7.0], [11.5, 0.0]])
    there = move(window.homography, some)
    back = move(flipped.homography, some * [-1, 1] + [right, 0])
    np.testing.assert_allclose(back, there * [-1, 1] + [right, 0], atol=1e-2)


def test_a_flipped_window_becomes_tensors():
    window = make_window(0, 2, 3, 4, TargetSpec(cells=("hof",)))
    cells = {"hof": np.random.default_rng(0).random((2, 3, 4, 4, 6, 9), np.float32)}
    flipped = dataclasses.replace(window, cells=cells).flip()
    arrays = {name: getattr(flipped, name) for name in (*ARRAYS, "homography")}
    for name, array in (arrays | dict(flipped.cells)).items():
        assert np.array_equal(torch.from_numpy(array).numpy(), array), name


@settings(max_examples=30, deadline=None)
@given(windows())
def test_flip_mirrors_shape_and_normalises_position(window):
    flipped, order = window.flip(), flip_points(window.spec.points)
    shape = window.shape[:, :, ::-1, order, :, ::-1]
    np.testing.assert_allclose(flipped.shape, shape, atol=1e-4)
    # A mirror changes the mean over both axes, so the position is normalised anew.
    values = flipped.displacement.reshape(*flipped.valid.shape[:3], -1)
    expected = (values - values.mean(-1, keepdims=True)) / (values.std(-1, keepdims=True) + 1e-6)
    got = flipped.position.reshape(values.shape)
    np.testing.assert_allclose(got, expected, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(crops())
def test_crop_is_slicing_with_the_origin_moved(case):
    window, (top, left, height, width) = case
    cropped = window.crop(top, left, height, width)
    cut = np.s_[:, top : top + height, left : left + width]
    for name in ("displacement", "hog", "valid", "position", "shape"):
        assert np.array_equal(getattr(cropped, name), getattr(window, name)[cut]), name
    side = window.spec.patch
    origin = np.array([left * side, top * side])
    np.testing.assert_allclose(cropped.points, window.points[cut] - origin, atol=1e-3)
    pixels = np.s_[:, top * side : (top + height) * side, left * side : (left + width) * side]
    assert np.array_equal(cropped.frames, window.frames[pixels])
    some = np.array([[3.0, 7.0], [11.5, 0.0]])
    there = move(window.homography, some + origin) - origin
    np.testing.assert_allclose(move(cropped.homography, some), there, atol=1e-2)


@settings(max_examples=20, deadline=None)
@given(crops())
def test_crop_and_flip_commute(case):
    window, (top, left, height, width) = case
    one = window.crop(top, left, height, width).flip()
    other = window.flip().crop(top, window.wp - left - width, height, width)
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    np.testing.assert_allclose(one.homography, other.homography, atol=1e-3)


def test_four_points_flip_as_documented():
    assert flip_points(4).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("crop", [(0, 0, 5, 1), (-1, 0, 1, 1), (0, 3, 1, 3), (0, 0, 0, 1)])
def test_crop_outside_of_the_window_is_refused(crop):
    with pytest.raises(UsageError, match="crop"):
        make_window(0, 1, 4, 5, TargetSpec()).crop(*crop)


def test_decoding_is_right_to_half_a_step():
    spec = TargetSpec(short_side=64, long_side=80, frames="none")
    rng = np.random.default_rng(0)
    displacement, hog = raw(rng, 2, 4, 5, spec)
    made = tubelets(0, 2, spec=spec)
    coded = CodedWindow(
        **{
            name: np.stack([getattr(t, name) for t in made])
            for name in ("position", "shape", "moments", "valid", "pts")
        },
        frames=(),
        homography=None,
        video="v",
        start=0,
        spec=spec,
    )
    window = coded.decode()
    assert window.frames is None and window.homography is None
    assert (window.hp, window.wp) == (coded.hp, coded.wp) == (4, 5)
    sd = displacement.std((-3, -2), keepdims=True)
    half = 0.5 * np.sqrt(4 * 6 - 1) / 127 * 1.001
    assert (np.abs(window.displacement - displacement) <= half * sd + 1e-6).all()
    sd = hog.std((-3, -2, -1), keepdims=True)
    half = 0.5 * np.sqrt(4 * 6 * 9 - 1) / 127 * 1.001
    assert (np.abs(window.hog - hog) <= half * sd + 1e-6).all()
    assert window.flip().frames is None
