"""Trajectories by a point tracker: what it gets, what becomes of its answer."""

import motion
import numpy as np
import pytest

from mme_core.canvas import plan_canvas
from mme_core.errors import UsageError
from mme_core.extract import extract_video
from mme_core.extract.point_tracks import PointTracks
from mme_core.extract.video_targets import stream_tubelets
from mme_core.io.video import open_video
from mme_core.spec import TargetSpec

CALLS: list[tuple[np.ndarray, np.ndarray]] = []
SPEED = np.array([1.4, -0.6], np.float32)  # of the fixture `pan`


def spec_of(function, **fields):
    return TargetSpec(short_side=64, long_side=80, tracks=f"{__name__}:{function}", **fields)


def exact(frames_TCHW, queries_N2):
    CALLS.append((frames_TCHW, queries_N2))
    steps = np.arange(len(frames_TCHW), dtype=np.float32)[:, None, None]
    return queries_N2 + steps * SPEED, np.ones((len(frames_TCHW), len(queries_N2)), bool)


def tensors(frames_TCHW, queries_N2):
    import torch

    positions, visible = exact(frames_TCHW, queries_N2)
    return torch.from_numpy(positions), torch.from_numpy(visible)


def hidden(frames_TCHW, queries_N2):
    """The first point is hidden in frame 2, the second is lost from frame 4 on."""
    positions, visible = exact(frames_TCHW, queries_N2)
    visible[2, 0] = False
    positions[4:, 1] = np.nan
    return positions, visible


def wrong(frames_TCHW, queries_N2):
    positions, visible = exact(frames_TCHW, queries_N2)
    return positions[None], visible


def no_visibility(frames_TCHW, queries_N2):
    return exact(frames_TCHW, queries_N2)[0]


@pytest.mark.parametrize("function", ["exact", "tensors"])
def test_displacements_are_those_of_the_tracker(pan, function):
    CALLS.clear()
    found = extract_video(pan, spec_of(function))
    assert found.displacement.shape == (5, 4, 5, 4, 6, 2)
    np.testing.assert_allclose(found.displacement, np.broadcast_to(SPEED, (5, 4, 5, 4, 6, 2)), 1e-4)
    assert found.valid.mean() == 7 / 8  # the first row of points leaves the frame
    assert [frames.shape for frames, _ in CALLS] == [(7, 3, 64, 96)] * 5
    assert CALLS[0][1].shape == (80, 2) and CALLS[0][1].min() == 3.5
    flow = extract_video(pan, TargetSpec(short_side=64, long_side=80))
    assert np.median(np.abs(found.hog - flow.hog)) < 0.1 * np.median(flow.hog)


def test_an_invisible_or_lost_point_is_invalid(pan):
    found = extract_video(pan, spec_of("hidden"))
    both = extract_video(pan, spec_of("exact"))
    valid = both.valid.copy()
    valid[:, 0, 0, :2] = False
    np.testing.assert_array_equal(found.valid, valid)
    assert np.isfinite(found.displacement).all() and np.isfinite(found.hog).all()


def test_a_tubelet_across_a_gap_is_not_tracked(tmp_path):
    frames = motion.render(motion.translation(1, 0), 20, 64, 96)
    pts = [512 * r + (r >= 11) * 4096 for r in range(20)]
    motion.write_video(tmp_path / "gap.mp4", frames, pts=pts)
    CALLS.clear()
    found = extract_video(tmp_path / "gap.mp4", spec_of("exact", stride=2, length=4))
    assert found.valid.any((1, 2, 3)).tolist() == [True, True, False, True, False]
    assert len(CALLS) == 3  # the last tubelet is cut short by the end
    assert not found.displacement[2].any()


def test_tubelets_that_have_ended_are_forgotten(pan):
    spec = spec_of("exact")
    tracks = PointTracks(exact, spec)
    with open_video(pan) as video:
        frames = list(tracks.watch(iter(video), plan_canvas(64, 96, spec)))
    assert len(frames) == 40 and spec.hop == 8
    known = [start for start in range(0, 40, 8) if tracks.after(start, 1) is not None]
    assert known == [32]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", r"positions returned float32 \(1, 7, 80, 2\), not float32 \(7, 80, 2\)"),
        ("no_visibility", "must return two arrays: positions and visibility"),
        ("missing", "cannot be imported"),
    ],
)
def test_a_wrong_tracker_is_named(pan, function, message):
    with pytest.raises(UsageError, match=rf"spec\.tracks={__name__}:{function}.*{message}"):
        extract_video(pan, spec_of(function))


def test_tracks_exclude_what_needs_flow():
    for fields in ({"check": True}, {"camera": "homography"}, {"cells": ("hof",)}):
        with pytest.raises(UsageError, match=r"needs flow, and spec\.tracks computes none"):
            spec_of("exact", **fields)


def test_tracks_have_no_flow_to_keep(pan):
    with pytest.raises(UsageError, match=r"spec\.tracks computes no flow, so none can be kept"):
        stream_tubelets(pan, spec_of("exact"), keep=lambda flow: None)


def test_the_tracker_is_in_the_hash_only_where_set():
    assert spec_of("exact").hash != TargetSpec(short_side=64, long_side=80).hash
    assert TargetSpec.from_dict(spec_of("exact").to_dict()) == spec_of("exact")
    assert not {"tracks", "flow_weights"} & TargetSpec().to_dict().keys()
