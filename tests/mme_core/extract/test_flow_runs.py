"""Flow functions that take all frames of a run: the same tracks, and each pair once."""

import itertools

import motion
import numpy as np
import pytest

from mme_core.canvas import plan_canvas
from mme_core.errors import UsageError, VideoError
from mme_core.extract import extract_video
from mme_core.extract.ahead import region_images
from mme_core.extract.flow import FlowOfFrames, flow_function
from mme_core.extract.flow_runs import LONGEST
from mme_core.extract.tracks import sample
from mme_core.extract.video_targets import stream_tubelets
from mme_core.io.video import Video
from mme_core.spec import TargetSpec
from mme_core.targets import unpack_valid

RUNS: list[np.ndarray] = []


def wobble(frames_TCHW):
    """A made-up flow that differs between frames and places; notes the frames."""
    RUNS.append(frames_TCHW)
    first, second = frames_TCHW[:-1].astype(np.float32), frames_TCHW[1:].astype(np.float32)
    return np.stack([first[:, 0], second[:, 1]], 1) / 64 - 2


def tensor(frames_TCHW, scale=1.0, **others):
    import torch

    return torch.from_numpy(wobble(frames_TCHW)).double() * scale


def two_images(first, second):
    return np.zeros((*first.shape, 2), np.float32)


def always_right(frames_TCHW):
    return np.ones((len(frames_TCHW) - 1, 2, *frames_TCHW.shape[2:]), np.float32)


def wrong(frames_TCHW):
    return np.zeros((len(frames_TCHW), 2, 3, 4), np.float32)


def spec_of(function, **fields):
    return TargetSpec(short_side=64, long_side=80, flow=f"{__name__}:{function}", **fields)


def all_images(path, spec):
    with Video(path) as video:
        frames = list(video)
        return region_images(frames, plan_canvas(*frames[0].shape, spec))


@pytest.mark.parametrize("function", ["wobble", "tensor"])
@pytest.mark.parametrize(("stride", "hop", "length"), [(1, 1, 6), (3, 6, 5), (4, 8, 6)])
def test_tracks_follow_the_flow_of_runs(pan, function, stride, hop, length):
    RUNS.clear()
    spec = spec_of(function, stride=stride, hop=hop, length=length)
    found = extract_video(pan, spec)
    runs = list(RUNS)
    needed = {p for r in range(0, 40, hop) for p in range(r, min(r + length, 39))}
    assert sum(len(run) - 1 for run in runs) == len(needed)
    assert all(1 < len(run) <= LONGEST + 1 and run.flags.c_contiguous for run in runs)
    images = all_images(pan, spec)
    offset = np.array(plan_canvas(64, 96, spec).offset, np.float32)
    for number, points in enumerate(found.points):
        first = number * hop
        at = points[..., 0, :].reshape(-1, 2) + offset
        for r in range(first, min(first + length, 39)):
            at = at + sample(np.moveaxis(wobble(images[r : r + 2])[0], 0, -1), at)
            step = points[..., r - first + 1, :].reshape(-1, 2) + offset
            np.testing.assert_allclose(step, at, atol=1e-4)


def test_no_run_crosses_a_gap(tmp_path):
    frames = motion.render(motion.translation(1, 0), 20, 64, 96)
    pts = [512 * r + (r >= 11) * 4096 for r in range(20)]
    motion.write_video(tmp_path / "gap.mp4", frames, pts=pts)
    RUNS.clear()
    spec = spec_of("wobble", stride=2, length=4)
    found = extract_video(tmp_path / "gap.mp4", spec)
    images = all_images(tmp_path / "gap.mp4", spec)
    assert [len(run) for run in RUNS] == [11, 9]
    np.testing.assert_array_equal(np.concatenate(RUNS), images)
    assert found.valid.any((1, 2, 3)).tolist() == [True, True, False, True, False]


def there_and_back(frames_TCHW):
    """Another flow for each pair; the flow backwards is exactly its opposite."""
    place = 3 * np.sin(frames_TCHW[:, 0, 10, 10].astype(np.float32))
    flow = np.zeros((len(frames_TCHW) - 1, 2, *frames_TCHW.shape[2:]), np.float32)
    flow[:, 0] = np.diff(place)[:, None, None]
    return flow


def test_the_check_meets_the_flow_of_the_same_pair_backwards(pan):
    plain = extract_video(pan, spec_of("there_and_back"))
    checked = extract_video(pan, spec_of("there_and_back", check=True))
    assert plain.valid.mean() > 0.5 and np.abs(plain.displacement).max() > 2
    np.testing.assert_array_equal(checked.valid, plain.valid)
    with pytest.raises(VideoError, match="without one valid trajectory"):
        extract_video(pan, spec_of("always_right", check=True))


def test_kept_flow_of_runs_is_that_of_every_pair(pan):
    spec, kept = spec_of("there_and_back", check=True), []
    tubelets = list(stream_tubelets(pan, spec, keep=kept.append))
    expected = there_and_back(all_images(pan, spec))
    np.testing.assert_array_equal(np.moveaxis(np.stack(kept), -1, 1), expected)
    plain = extract_video(pan, spec_of("there_and_back"))
    np.testing.assert_array_equal(
        np.stack([unpack_valid(tubelet.valid, 4) for tubelet in tubelets]), plain.valid
    )


def test_a_wrong_result_is_named(pan):
    with pytest.raises(UsageError, match=r"wrong returned float32 \(7, 2, 3, 4\), not float32 \(6"):
        extract_video(pan, spec_of("wrong"))


def test_one_argument_that_must_be_given_means_frames():
    for name, takes_frames in {"wobble": True, "tensor": True, "two_images": False}.items():
        flow = flow_function(f"{__name__}:{name}")
        assert isinstance(flow, FlowOfFrames) == takes_frames


def test_the_pairs_of_a_run_follow_one_another(pan):
    RUNS.clear()
    extract_video(pan, spec_of("wobble", stride=1, hop=2, length=6))
    for before, after in itertools.pairwise(RUNS):
        np.testing.assert_array_equal(before[-1], after[0])
