import numpy as np
from motion import displacement, render, rotation

from mme_core.extract.camera import homography

MOTION = rotation(1.5, (200, 60))
LUMA = render(MOTION, 1, 160, 240, finest=5)[0]
GRID = np.stack(np.meshgrid(np.arange(240), np.arange(160)), -1).astype(np.float32)
FLOW = displacement(MOTION, 0, GRID).astype(np.float32)
OFFSET = (20, 10)


def apply(matrix, points):
    moved = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ matrix.T
    return moved[..., :2] / moved[..., 2:]


def test_the_background_is_found_despite_a_moving_object():
    flow = FLOW.copy()
    flow[40:110, 60:150] += [6, -4]
    matrix = homography(LUMA, flow, OFFSET)
    assert matrix.dtype == np.float32 and matrix.shape == (3, 3)
    canvas = GRID - OFFSET
    error = np.linalg.norm(apply(matrix, canvas) - (canvas + FLOW), axis=-1)
    assert error.max() < 0.2


def test_the_same_input_gives_the_same_matrix():
    noisy = FLOW + np.random.default_rng(0).normal(0, 1, FLOW.shape).astype(np.float32)
    first = homography(LUMA, noisy, OFFSET)
    assert all((homography(LUMA, noisy, OFFSET) == first).all() for _ in range(5))


def test_too_little_texture_gives_no_homography():
    assert homography(np.full((160, 240), 90, np.uint8), FLOW, OFFSET) is None
    few = np.full((160, 240), 90, np.uint8)
    few[40:60, 40:60] = LUMA[40:60, 40:60]
    assert homography(few, FLOW, OFFSET) is None
    out_of_frame = np.full_like(FLOW, 500)
    assert homography(LUMA, out_of_frame, OFFSET) is None


def test_fewer_than_25_corners_give_no_homography(monkeypatch):
    for inliers, believed in ((24, False), (25, True)):
        mask = np.arange(300)[:, None] < inliers
        monkeypatch.setattr("cv2.findHomography", lambda *_, mask=mask: (np.eye(3), mask))
        assert (homography(LUMA, FLOW, OFFSET) is not None) == believed
