"""Which frames make a tubelet, what is computed of them and when, and what is invalid."""

import dataclasses
import itertools

import av
import cv2
import motion
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.canvas import plan_canvas
from mme_core.errors import VideoError
from mme_core.extract import extract_video
from mme_core.extract.hog import HogField
from mme_core.extract.tracker import Tracker
from mme_core.extract.tracks import sample
from mme_core.io.video import Video
from mme_core.spec import TargetSpec

SMALL = TargetSpec(short_side=64, long_side=80, flow="dis-fast")


def still(first, second):
    return np.zeros((*first.shape, 2), np.float32)


def wobble(first, second):
    """A flow that differs between frames and places, and is quick and exactly repeatable."""
    flow = cv2.merge([first.astype(np.float32), second.astype(np.float32)])
    return cv2.blur(flow, (9, 9)) / 64 - 2


def direct(path, spec):
    """Displacement and points by the definition, tubelet by tubelet, from all frames in memory."""
    with Video(path) as video:
        frames = list(video)
        canvas = plan_canvas(*frames[0].shape, spec)
        luma = [f.luma(lambda image: canvas.crop_region(canvas.resize(image))) for f in frames]
    flows = [wobble(first, second) for first, second in itertools.pairwise(luma)]
    grid = extract_video(path, spec).points[0, ..., 0, :].reshape(-1, 2)
    for first in range(0, len(luma) - spec.stride, spec.hop):
        points = [grid + np.array(canvas.offset, np.float32)]
        for flow in flows[first : first + spec.length]:
            points.append(points[-1] + sample(flow, points[-1]))
        points += [points[-1]] * (spec.length + 1 - len(points))
        yield np.stack(points, 1) - np.array(canvas.offset, np.float32)


@pytest.mark.parametrize(
    ("stride", "hop", "length"), [(1, 1, 6), (1, 2, 6), (2, 2, 6), (3, 6, 5), (4, 8, 6), (6, 4, 3)]
)
def test_each_needed_flow_is_computed_once(pan, monkeypatch, stride, hop, length):
    spec = TargetSpec(
        stride=stride,
        hop=hop,
        length=length,
        short_side=64,
        long_side=80,
        flow=f"{__name__}:wobble",
    )
    expected = list(direct(pan, spec))
    calls, loads = [], []
    monkeypatch.setitem(
        globals(), "wobble", lambda *pair, flow=wobble: calls.append(1) or flow(*pair)
    )
    monkeypatch.setattr(
        HogField, "load", lambda *args, load=HogField.load: loads.append(1) or load(*args)
    )
    found = extract_video(pan, spec)
    assert len(found.points) == len(expected)
    for points, exact in zip(found.points, expected):
        assert np.allclose(points.reshape(exact.shape), exact, atol=1e-4)
    needed = {
        pair
        for first in range(0, 40, hop)
        for pair in range(first, first + length)
        if pair + 1 < 40
    }
    assert len(calls) == len(needed)
    assert len(loads) == len(
        {r for first in range(0, 40, hop) for r in range(first, first + length) if r < 40}
    )


@settings(max_examples=12, deadline=None)
@given(frames=st.integers(1, 24), stride=st.integers(1, 4), length=st.integers(1, 8))
def test_a_tubelet_needs_both_its_sampled_frames(tmp_path_factory, frames, stride, length):
    path = tmp_path_factory.mktemp("length") / "clip.mp4"
    motion.write_video(path, motion.render(motion.translation(0.4, 0), frames, 32, 48))
    spec = TargetSpec(
        stride=stride, length=length, short_side=32, long_side=48, flow=f"{__name__}:still"
    )
    if frames <= max(length, stride):
        with pytest.raises(VideoError, match=f"{frames} frames?: too short for one trajectory"):
            extract_video(path, spec)
        return
    found = extract_video(path, spec)
    assert found.summary.frames == frames
    assert len(found.valid) == len(range(0, frames - stride, spec.hop))
    for n, valid in enumerate(found.valid):
        assert valid.all() if n * spec.hop + length < frames else not valid.any()


def test_steps_after_the_end_are_invalid(pan):
    whole = extract_video(pan, dataclasses.replace(SMALL, length=12))
    assert not whole.valid[-1].any() and whole.valid[0].any()
    assert whole.displacement[-1][..., :7, :].any()
    assert not whole.displacement[-1][..., 7:, :].any()
    assert (whole.points[-1][..., 8:, :] == whole.points[-1][..., 7:8, :]).all()
    assert (whole.hog[-1][..., 8:, :] == whole.hog[-1][..., 7:8, :]).all()


def test_trajectories_that_leave_the_region_are_invalid(tmp_path):
    path = tmp_path / "leave.mp4"
    motion.write_video(path, motion.render(motion.translation(4, 0), 14, 64, 96, finest=8))
    found = extract_video(path, SMALL)
    outside = found.points[..., 0].max(-1) > 87.5  # canvas 80 of 96: 8 pixels on each side
    assert outside.any() and not found.valid[outside].any()
    assert found.valid[0][found.points[0][..., 0].max(-1) < 86].all()


def test_a_gap_is_not_bridged(tmp_path):
    path = tmp_path / "gap.mp4"
    frames = motion.render(motion.translation(1, 0), 48, 64, 96, finest=5)
    motion.write_video(path, frames, options={"crf": "10", "g": "12", "bf": "0"})
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    place, size = places[21]  # of the tubelet at 16 … 22, whose sampled frames are 16 and 20
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    found = extract_video(path, SMALL)
    assert found.summary.frames == 47
    assert found.valid.any((1, 2, 3)).tolist() == [True, True, False, True, True, True]
    assert not found.displacement[2][..., 4, :].any()
    assert {"broken packets: 1", "gaps: 1"} <= set(found.summary.warnings)


def test_camera_motion_is_stored_beside_the_total(pan):
    plain = extract_video(pan, SMALL)
    found = extract_video(pan, dataclasses.replace(SMALL, camera="homography"))
    assert (found.displacement == plain.displacement).all() and plain.homography is None
    assert found.homography.shape == (5, 6, 3, 3) and found.homography.dtype == np.float32
    start = np.concatenate([found.points, np.ones_like(found.points[..., :1])], -1)[..., :-1, :]
    moved = np.einsum("nlij,nhwklj->nhwkli", found.homography, start)
    residual = found.displacement - (moved[..., :2] / moved[..., 2:] - start[..., :2])
    assert np.median(np.abs(residual[found.valid])) < 0.1


def test_inconsistent_flow_makes_trajectories_invalid(pan):
    spec = dataclasses.replace(SMALL, flow=f"{__name__}:wobble")
    free = extract_video(pan, spec)
    checked = extract_video(pan, dataclasses.replace(spec, check=True))
    assert (checked.displacement == free.displacement).all()
    assert not checked.valid[~free.valid].any()
    assert 0 < checked.valid.sum() < free.valid.sum()


def test_a_point_that_leaves_on_its_last_step_is_invalid(pan):
    frames = iter([0, 0, 0, 0, 0, 200])

    def jump(first, second):
        return np.full((*first.shape, 2), next(frames, 0), np.float32)

    canvas = plan_canvas(64, 96, SMALL)
    tracker = Tracker(canvas, SMALL, jump, lambda *_: None)
    with Video(pan) as video:
        (tubelet,) = [t for _, frame in zip(range(7), video) for t in tracker.take(frame)]
    assert not tubelet.valid.any()


def test_consistent_flow_leaves_trajectories_valid(pan):
    free = extract_video(pan, SMALL)
    checked = extract_video(pan, dataclasses.replace(SMALL, check=True))
    assert checked.valid.sum() > 0.8 * free.valid.sum()
