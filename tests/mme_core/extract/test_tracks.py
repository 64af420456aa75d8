import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.extract.tracks import consistent, inside, sample

POINTS = hnp.arrays(np.float32, (7, 2), elements=st.floats(-20, 40, width=16))


@settings(max_examples=50, deadline=None)
@given(POINTS)
def test_a_linear_image_is_sampled_exactly(points):
    y, x = np.mgrid[0:12, 0:17].astype(np.float32)
    plane = np.stack([x, y, 2 * x - 3 * y + 1], -1)
    inner = np.clip(points, 0, [16, 11])
    expected = np.column_stack([inner, 2 * inner[:, 0] - 3 * inner[:, 1] + 1])
    assert np.allclose(sample(plane, points), expected, atol=1e-4)


def test_between_pixels_the_reading_is_bilinear():
    image = np.array([[0, 8], [4, 100]], np.float32)[..., None]
    assert sample(image, np.array([[0.25, 0.5]], np.float32)).item() == pytest.approx(
        0.75 * 0.5 * 0 + 0.25 * 0.5 * 8 + 0.75 * 0.5 * 4 + 0.25 * 0.5 * 100
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_thin_images(shape):
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(*shape, 1)
    last = np.array([shape[::-1]], np.float32) - 1
    assert sample(image, last).item() == image.size - 1
    assert sample(image, last / 2).item() == (image.size - 1) / 2


def test_inside_counts_the_border_pixels():
    points = np.array([[0, 0], [16, 11], [-0.1, 3], [16.1, 3], [3, 11.1], [3, -0.1]])
    assert inside(points, (12, 17)).tolist() == [True, True, False, False, False, False]


def test_forward_and_backward_flow_must_cancel():
    forward = np.array([[30.0, 0], [30.0, 0], [0.5, 0], [0.5, 0]], np.float32)
    moved = np.array([[2, 2], [5, 2], [8, 2], [11, 2]], np.float32)
    back = np.zeros((5, 14, 2), np.float32)
    back[2, [2, 5, 8, 11], 0] = [-28, -26, 0.4, 0.6]
    # errors 2, 4, 0.9, 1.1 px; limits 2.9, 2.8, 1, 1 px
    assert consistent(forward, back, moved).tolist() == [True, False, True, False]
