"""Static, shaking, letterboxed and repeated videos are told from ordinary ones."""

import dataclasses

import motion
import numpy as np
import pytest
from stores import write_store

from mme_core.report.remarks import remarks
from mme_core.report.survey import choose, has_bars, survey
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore

SPEC = TargetSpec(stride=2, length=4, short_side=64, long_side=96, flow="dis-ultrafast")
FRAMES, HEIGHT, WIDTH = 36, 64, 96


def shaking(r):
    """A camera that jumps by 2.5 px each frame, there and back."""
    return np.array([[1, 0, 2.5 * (r % 2)], [0, 1, 0]], float)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    moving = motion.render(motion.translation(1.4, -0.6), FRAMES, HEIGHT, WIDTH, finest=5)
    films = {
        "pan": moving,
        "pan again": moving,
        "still": np.repeat(moving[:1], FRAMES, axis=0),
        "shake": motion.render(shaking, FRAMES, HEIGHT, WIDTH, seed=3, finest=5),
        "bars": motion.render(
            motion.translation(1.0, 0.5), FRAMES, HEIGHT, WIDTH, seed=5, finest=5
        ),
    }
    films["bars"][:, :8] = films["bars"][:, -8:] = 0
    paths = []
    for name, frames in films.items():
        paths.append(root / "x" / f"{name}.mp4")
        paths[-1].parent.mkdir(exist_ok=True)
        motion.write_video(paths[-1], frames)
    return TargetStore(write_store(root / "store", paths, SPEC))


@pytest.fixture(scope="module")
def found(store):
    rows = choose(len(store.videos), 300)
    return {one.title: one for one in remarks(store.videos, list(survey(store, rows)), 1)}


def named(found, start):
    return [one.videos for title, one in found.items() if title.startswith(start)]


@pytest.mark.parametrize(
    ("start", "videos"),
    [
        ("Static: 1 of 5 videos", ["x/still.mp4"]),
        ("Look and move alike: 1 pair", ["x/pan.mp4 = x/pan again.mp4"]),
        ("Black bars: 1 of 5", ["x/bars.mp4"]),
        ("Shaking camera: 1 of 5", ["x/shake.mp4"]),
    ],
)
def test_warns_of(found, start, videos):
    assert named(found, start) == [videos]


def test_measures_a_known_motion(store):
    (pan,) = survey(store, [0])
    assert pan.speed == pytest.approx(np.hypot(1.4, 0.6), rel=0.1)
    assert pan.moving > 0.95 and pan.valid > 0.8 and pan.shake < 0.2


def test_frames_in_lz4_look_as_in_jpeg(tmp_path):
    path = tmp_path / "x" / "pan.mp4"
    path.parent.mkdir()
    motion.write_video(path, motion.render(motion.translation(1, 0), FRAMES, HEIGHT, WIDTH))
    looks = []
    for frames in ("jpeg", "lz4"):
        spec = dataclasses.replace(SPEC, frames=frames)
        (found,) = survey(TargetStore(write_store(tmp_path / frames, [path], spec)), [0])
        looks.append(found.looks)
    assert looks[0].shape == looks[1].shape
    np.testing.assert_allclose(looks[0], looks[1], atol=0.1 * looks[0].std())


@pytest.mark.parametrize(
    ("top", "bottom", "want"), [(6, 6, True), (6, 0, False), (1, 1, False), (20, 20, False)]
)
def test_bars_are_on_two_sides_and_narrow(top, bottom, want):
    frames = np.full((3, 64, 96), 120, np.uint8)
    frames[:, :top] = frames[:, 64 - bottom :] = 4
    assert has_bars(frames) == want
    assert has_bars(frames.transpose(0, 2, 1)) == want


def test_a_dark_film_has_no_bars():
    assert not has_bars(np.zeros((2, 64, 96), np.uint8))


def test_a_sample_is_spread_over_the_table():
    assert choose(5, 300) == [0, 1, 2, 3, 4]
    rows = choose(10_000, 300)
    assert len(set(rows)) == 300 and rows[0] == 0 and rows[-1] == 9_999
