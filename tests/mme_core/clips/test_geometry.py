import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.canvas import grid_points
from mme_core.clips.geometry import (
    View,
    centre_view,
    crop_image,
    crop_patches,
    draw_view,
    with_border,
    zoom_field,
    zoom_homography,
    zoom_valid,
)
from mme_core.spec import TargetSpec

SPEC = TargetSpec()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 20), st.integers(4, 20), st.integers(0, 6))
def test_drawn_views_are_inside_the_canvas(seed, hp, wp, room):
    view = draw_view(np.random.default_rng(seed), hp, wp, (4, 4 + room), flip=False)
    assert 4 <= view.size <= min(4 + room, hp, wp)
    assert 0 <= view.top <= hp - view.size and 0 <= view.left <= wp - view.size
    assert not view.flip


def test_every_place_size_and_flip_is_drawn_and_switching_flip_keeps_the_rest():
    def draw(flip):
        return [draw_view(np.random.default_rng(i), 5, 6, (4, 5), flip) for i in range(400)]

    views = draw(True)
    assert len({(v.top, v.left, v.size) for v in views}) == 2 * 3 + 1 * 2
    assert 150 < sum(v.flip for v in views) < 250
    assert [(v.top, v.left, v.size) for v in draw(False)] == [
        (v.top, v.left, v.size) for v in views
    ]


def test_centre_view():
    assert centre_view(16, 20, 14) == View(1, 3, 14)


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_takes_the_same_pixels_and_patches(flip):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    # each patch's target is its own first pixel: crops of both must agree
    targets = image[::16, ::16].reshape(1, 6, 8, 3)
    view = View(1, 2, 4, flip)
    out = np.empty((64, 64, 3), np.uint8)
    crop_image(image, view, 16, out)
    if flip:
        out = out[:, ::-1]
    cropped = crop_patches(targets, view)
    assert cropped.flags.c_contiguous
    np.testing.assert_array_equal(out[::16, ::16], cropped[0])


def test_a_zoom_of_the_models_size_is_exact():
    values = np.random.default_rng(0).normal(size=(2, 6, 7, 4, 3, 2)).astype(np.float32)
    view = View(1, 2, 4)
    np.testing.assert_array_equal(zoom_field(values, view, 4, 2), crop_patches(values, view))
    valid = np.random.default_rng(0).random((2, 6, 7, 4)) < 0.5
    np.testing.assert_array_equal(zoom_valid(valid, view, 4, 2), crop_patches(valid, view))


@pytest.mark.parametrize("size", [10, 12, 14, 16])
def test_zoom_reads_a_linear_field_at_the_models_points(size):
    """The position itself, stored at the grid, must come out as the model's grid on the canvas."""
    points = grid_points(16, 20, SPEC)[None]
    view = View(16 - size, 2, size)
    read = zoom_field(points, view, 14, 2)[0]
    scale = 14 / size
    corner = np.array([view.left, view.top]) * 16
    expected = corner - 0.5 + (grid_points(14, 14, SPEC) + 0.5) / scale
    # beyond the canvas' last point the stored grid's border is read
    np.testing.assert_allclose(read, np.clip(expected, 3.5, [315.5, 251.5]), atol=1e-3)


@pytest.mark.parametrize("view", [View(0, 0, 5), View(2, 3, 5), View(4, 5, 4), View(1, 0, 7)])
def test_a_border_of_one_patch_is_all_that_a_zoom_reads(view):
    values = np.random.default_rng(0).normal(size=(2, 8, 9, 4, 3)).astype(np.float32)
    rows, columns, inside = with_border(view, 8, 9)
    read = zoom_field(values[:, rows, columns], inside, 6, 2)
    np.testing.assert_allclose(read, zoom_field(values, view, 6, 2), atol=1e-6)


def test_zoom_reads_one_point_a_patch_too():
    spec = TargetSpec(points=1)
    points = grid_points(8, 8, spec)[None]
    read = zoom_field(points, View(2, 2, 4), 2, 1)[0]
    np.testing.assert_allclose(read[0, 0, 0], [47.5, 47.5])


def test_an_invalid_point_spoils_exactly_what_reads_it():
    valid = np.ones((1, 16, 16, 4), bool)
    valid[0, 5, 5, 3] = False
    view = View(0, 0, 16)
    read = zoom_valid(valid, view, 14, 2)
    weight = zoom_field((~valid).astype(np.float32), view, 14, 2)
    assert 1 <= (~read).sum() <= 4
    np.testing.assert_array_equal(read, weight == 0)


@pytest.mark.parametrize("size", [10, 16])
def test_the_zoomed_image_and_the_zoomed_points_agree(size):
    """A blob on the canvas and the point that follows it land on the same pixel of the zoom."""
    canvas = np.zeros((256, 320, 3), np.float32)
    point = np.array([150.0, 120.0])
    canvas[120, 150] = 1
    canvas = cv2.GaussianBlur(canvas, (0, 0), 4)
    canvas = (canvas / canvas.max() * 255).astype(np.uint8)
    view = View(0, 2, size)
    out = np.empty((224, 224, 3), np.uint8)
    crop_image(canvas, view, 16, out)
    weight = out[..., 0].astype(float)
    y, x = (np.average(axis, weights=weight) for axis in np.indices(weight.shape))
    shift = np.eye(3, dtype=np.float32)
    shift[:2, 2] = (8, 4)
    scale = 14 / size
    expected = scale * (point - [32, 0] + 0.5) - 0.5
    np.testing.assert_allclose([x, y], expected, atol=0.1)
    moved = zoom_homography(shift, view, 14, 16) @ [x, y, 1]
    np.testing.assert_allclose(moved[:2], [x + 8 * scale, y + 4 * scale], atol=1e-3)


def test_a_zoomed_homography_moves_the_zoomed_points():
    rng = np.random.default_rng(0)
    homography = np.eye(3) + rng.normal(size=(3, 3)) * [
        [1e-2, 1e-2, 3],
        [1e-2, 1e-2, 3],
        [1e-5] * 2 + [0],
    ]
    view, scale = View(3, 4, 10), 1.4
    points = rng.uniform(50, 200, (20, 2))

    def apply(matrix, xy):
        mapped = np.c_[xy, np.ones(len(xy))] @ matrix.T
        return mapped[:, :2] / mapped[:, 2:]

    def to_crop(xy):
        return scale * (xy - [64, 48] + 0.5) - 0.5

    zoomed = zoom_homography(homography, view, 14, 16)
    np.testing.assert_allclose(
        apply(zoomed, to_crop(points)), to_crop(apply(homography, points)), atol=1e-3
    )


def test_a_crop_is_shrunk_by_area_and_grown_by_a_cubic():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    half, double = np.empty((32, 32, 3), np.uint8), np.empty((128, 128, 3), np.uint8)
    crop_image(noise, View(0, 0, 4), 16, half)
    mean = noise.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(half - mean).max() <= 1
    crop_image(noise, View(0, 0, 4), 16, double)
    cubic = cv2.resize(noise, (128, 128), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(double, cubic)
