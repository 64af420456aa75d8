import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion import render, translation

from mme_core.extract.hog import HogField
from mme_core.spec import TargetSpec

SPEC = TargetSpec()


def direct(luma, point, bins=9, cell=8):
    """The definition, pixel by pixel: a border pixel counts by the part the window covers."""
    image = np.pad(luma.astype(float) / 255, 1, mode="edge")
    gx, gy = image[1:-1, 2:] - image[1:-1, :-2], image[2:, 1:-1] - image[:-2, 1:-1]
    histogram = np.zeros(bins)
    left, top = point[0] - cell / 2, point[1] - cell / 2  # pixel i covers i − 0.5 … i + 0.5
    for y in range(luma.shape[0]):
        for x in range(luma.shape[1]):
            part_x = min(x + 0.5, left + cell) - max(x - 0.5, left)
            part_y = min(y + 0.5, top + cell) - max(y - 0.5, top)
            if part_x > 0 and part_y > 0:
                angle = np.degrees(np.arctan2(gy[y, x], gx[y, x])) % 180
                place = angle / (180 / bins) - 0.5
                low = int(np.floor(place))
                weight = np.hypot(gx[y, x], gy[y, x]) * part_x * part_y
                histogram[low % bins] += weight * (1 - place + low)
                histogram[(low + 1) % bins] += weight * (place - low)
    return histogram


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 52), np.uint8)


def hog_of(luma, points, spec=SPEC):
    field = HogField(luma.shape, spec)
    field.load(luma)
    return field.at(points)


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_agrees_with_the_direct_sum_at_sub_pixel_positions(noise):
    points = np.random.default_rng(1).uniform(0, [51, 39], (60, 2)).astype(np.float32)
    found = hog_of(noise, points)
    expected = np.array([direct(noise, point) for point in points])
    assert np.allclose(found, expected, rtol=2e-3, atol=2e-2)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(-20, 70, width=32)))
def test_a_part_of_the_image_gives_exactly_the_same(points):
    luma = np.random.default_rng(0).integers(0, 256, (40, 52), np.uint8)
    field = HogField(luma.shape, SPEC)
    field.load(luma, [points[:1], points[1:]])
    np.testing.assert_array_equal(field.at(points), hog_of(luma, points))


@pytest.mark.parametrize(("bins", "cell"), [(8, 6), (9, 7), (12, 16)])
def test_other_bins_and_windows_agree_with_direct_sum(noise, bins, cell):
    spec = TargetSpec(hog_bins=bins, hog_cell=cell)
    points = np.array([[0, 0], [51, 39], [20.25, 11.5], [30, 17]], np.float32)
    found = hog_of(noise, points, spec)
    expected = np.array([direct(noise, point, bins, cell) for point in points])
    assert np.allclose(found, expected, rtol=2e-3, atol=4e-2)


def test_the_window_of_a_starting_point_is_its_cell():
    luma = np.zeros((32, 32), np.uint8)
    luma[8:16, 16:24] = np.random.default_rng(0).integers(0, 256, (8, 8))
    luma[8:16, [16, 23]] = luma[[8, 15], 16:24] = 0  # all gradients lie inside this one cell
    centres = np.array([[19.5, 11.5], [27.5, 11.5], [19.5, 3.5], [11.5, 19.5]], np.float32)
    sums = hog_of(luma, centres).sum(1)
    assert sums[0] > 1 and not sums[1:].any()


def test_a_ramp_fills_the_bin_of_its_direction():
    y, x = np.mgrid[0:16, 0:16] - 7.5
    for b in range(9):
        angle = np.radians(10 + 20 * b)
        luma = np.rint(128 + 10 * (x * np.cos(angle) + y * np.sin(angle))).astype(np.uint8)
        histogram = hog_of(luma, np.array([[7.5, 7.5]], np.float32))[0]
        assert histogram.argmax() == b and histogram[b] > 0.8 * histogram.sum()


def test_a_mirror_reverses_the_bins_exactly(noise):
    points = np.random.default_rng(2).integers(0, [512, 390], (50, 2)).astype(np.float32) / 8
    points[:, 0] = np.minimum(points[:, 0], 51)
    mirrored = points * [-1, 1] + [51, 0]
    straight = hog_of(noise, points)
    flipped = hog_of(np.ascontiguousarray(noise[:, ::-1]), mirrored)
    assert (flipped[:, ::-1] == straight).all()


def test_hog_window_follows_the_point():
    frames = render(translation(4.3, 1.6), 6, 96, 128, finest=5)
    start = np.stack(np.meshgrid(np.arange(12, 80, 8), np.arange(12, 72, 8)), -1).reshape(-1, 2)
    before = hog_of(frames[0], start)
    assert np.median(cosine(before, hog_of(frames[5], start + np.array([21.5, 8.0])))) >= 0.99
    assert np.median(cosine(before, hog_of(frames[5], start))) <= 0.90


def test_the_next_image_forgets_the_one_before(noise):
    points = np.random.default_rng(3).uniform(0, [51, 39], (60, 2)).astype(np.float32)
    field = HogField(noise.shape, SPEC)
    field.load(255 - noise[::-1])
    field.load(noise)
    assert (field.at(points) == hog_of(noise, points)).all()


def test_outside_the_image_is_read_as_its_border(noise):
    outside = np.array([[-3, 9], [60, 9], [9, -3], [9, 50]], np.float32)
    border = np.array([[0, 9], [51, 9], [9, 0], [9, 39]], np.float32)
    assert (hog_of(noise, outside) == hog_of(noise, border)).all()
