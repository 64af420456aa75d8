"""Crop and flip are written for windows of a store and for batches: both must agree."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_targets import raw, tubelets

from mme_core.clips.assembly import zoom_homography
from mme_core.clips.fetching import write_crops
from mme_core.clips.geometry import View
from mme_core.clips.trajectories import stored_to_raw
from mme_core.spec import TargetSpec
from mme_core.store.window import CodedWindow, Window
from mme_core.targets import encode, pack_valid


@st.composite
def cases(draw):
    """A coded window, its exact homographies, and a view of it."""
    grid = draw(st.sampled_from([1, 2]))
    spec = TargetSpec(short_side=64, long_side=112, points=grid**2, camera="homography")
    hp, wp = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    size = draw(st.integers(1, min(hp, wp)))
    view = View(
        draw(st.integers(0, hp - size)), draw(st.integers(0, wp - size)), size, draw(st.booleans())
    )
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    position, shape, moments = encode(*raw(rng, 2, hp, wp, spec), spec)
    made = tubelets(seed, 2, hp, wp, spec)
    coded = CodedWindow(
        position=position,
        shape=shape,
        moments=moments,
        valid=pack_valid(rng.random((2, hp, wp, spec.points)) > 0.3),
        pts=np.zeros((2, 2), np.int64),
        frames=tuple(jpeg for tubelet in made for jpeg in tubelet.frames),
        homography=np.stack([tubelet.homography for tubelet in made]),
        video="v",
        start=0,
        spec=spec,
    )
    return coded, view


def through_window(coded: CodedWindow, view: View) -> Window:
    cropped = coded.decode().crop(view.top, view.left, view.size, view.size)
    return cropped.flip() if view.flip else cropped


def through_batch(coded: CodedWindow, view: View, camera: bool = False):
    names = ("position", "shape", "moments", "valid")
    rows = slice(view.top, view.top + view.size)
    columns = slice(view.left, view.left + view.size)
    arrays = {name: getattr(coded, name)[:, rows, columns] for name in names}
    arrays["homography"] = coded.homography
    arrays["origin"] = np.array([view.left, view.top], np.float32) * coded.spec.patch
    arrays["flip"] = np.array(view.flip)
    batch = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
    return stored_to_raw(batch, coded.spec, camera)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_batches_and_windows_crop_and_flip_alike(case):
    coded, view = case
    window, batch = through_window(coded, view), through_batch(coded, view)
    np.testing.assert_array_equal(batch.displacement[0], window.displacement)
    np.testing.assert_array_equal(batch.hog[0], window.hog)
    np.testing.assert_array_equal(batch.valid[0], window.valid)
    side = view.size * coded.spec.patch
    frames = np.empty((2, 1, side, side, 3), np.uint8)
    write_crops(coded.decode_frames()[0], [view], coded.spec.patch, frames, 1, 0)
    np.testing.assert_array_equal(frames[1, 0], window.frames[0])


@settings(max_examples=30, deadline=None)
@given(cases())
def test_batches_and_windows_see_one_camera(case):
    """Motion less the camera's: before the flip in a batch, after it in a window."""
    coded, view = case
    window, batch = through_window(coded, view), through_batch(coded, view, camera=True)
    before = window.points[..., :-1, :].astype(np.float64)
    matrix = window.homography.astype(np.float64)[:, None, None, None]
    moved = np.einsum("...ij,...j->...i", matrix[..., :2], before) + matrix[..., 2]
    residual = window.displacement - (moved[..., :2] / moved[..., 2:] - before)
    np.testing.assert_allclose(batch.displacement[0], residual, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_a_crop_is_a_zoom_by_one(case):
    coded, view = case
    window = coded.decode().crop(view.top, view.left, view.size, view.size)
    place = torch.tensor([[view.top, view.left, view.size, coded.hp, coded.wp]])
    matrices = torch.from_numpy(coded.homography)[None]
    zoomed = zoom_homography(matrices, place, view.size, coded.spec.patch)[0]
    np.testing.assert_allclose(zoomed, window.homography, atol=1e-5)
