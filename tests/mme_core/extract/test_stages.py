"""The time of an extraction is spread over its stages, and none counts twice."""

import numpy as np
import pytest
from motion import render, translation, write_video

from mme_core.extract import stages, stream_tubelets
from mme_core.extract.stages import Stopwatch
from mme_core.io.video import Video
from mme_core.spec import TargetSpec


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    return now


def spend(clock, seconds):
    clock[0] += seconds
    return seconds


def test_a_stage_inside_another_counts_alone(clock):
    watch = Stopwatch()
    with watch.of("tracks"):
        spend(clock, 1)
        assert watch.calls("flow", spend)(clock, 4) == 4
        spend(clock, 2)
    spend(clock, 8)
    assert watch.seconds == {"decode": 0, "flow": 4, "tracks": 3, "frames": 0, "writing": 0}


def test_an_error_ends_its_stage(clock):
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.of("tracks"):
        watch.calls("flow", {}.__getitem__)("none")
    spend(clock, 8)
    assert not any(watch.seconds.values())


def test_the_use_of_items_counts_elsewhere(clock):
    watch = Stopwatch()
    made = watch.each("decode", (spend(clock, 1) for _ in range(3)))
    with watch.of("writing"):
        assert sum(spend(clock, 2 * item) for item in made) == 6
    assert watch.seconds["decode"] == 3 and watch.seconds["writing"] == 6


CLOCK = [0.0]


def of_two_images(first, _):
    CLOCK[0] += 1000
    return np.zeros((*first.shape, 2), np.float32)


def of_many_frames(frames_TCHW):
    CLOCK[0] += 1000
    count, _, height, width = frames_TCHW.shape
    return np.zeros((count - 1, 2, height, width), np.float32)


@pytest.mark.parametrize("function", ["of_two_images", "of_many_frames"])
def test_decoding_for_flow_counts_as_decoding(tmp_path, monkeypatch, function):
    write_video(tmp_path / "v.mp4", render(translation(1, 0), 12, 48, 64, finest=6))
    decode = Video._pictures

    def slow(self):
        for picture in decode(self):
            CLOCK[0] += 1
            yield picture

    monkeypatch.setattr(Video, "_pictures", slow)
    monkeypatch.setattr(stages.time, "perf_counter", lambda: CLOCK[0])
    spec = TargetSpec(stride=1, short_side=48, long_side=64, flow=f"{__name__}:{function}")
    stream = stream_tubelets(tmp_path / "v.mp4", spec)
    assert len(list(stream)) == 6
    spent = stream.stopwatch.seconds
    assert spent["decode"] == 12 and spent["flow"] >= 1000
    assert sum(spent.values()) == 12 + spent["flow"]
