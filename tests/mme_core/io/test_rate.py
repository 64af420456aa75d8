"""The frame rate is right although timestamps pause, jump or start again."""

import numpy as np
import pytest

from mme_core.io.rate import FrameRate
from mme_core.io.timeline import NO_PTS, Timeline


def rate_of(stamps):
    timeline = Timeline(reliable=True)
    for pts in stamps:
        timeline.step(int(pts))
    return timeline.rate.measure(1 / 90_000)


REGULAR = np.arange(30) * 3000


@pytest.mark.parametrize("offset", [-50_000, 8_590_330_592, 180_000])
def test_clock_jump_does_not_change_the_rate(offset):
    assert rate_of([*REGULAR, *(REGULAR + REGULAR[-1] + offset)]) == pytest.approx(30)


def test_rounded_steps_keep_their_exact_mean():
    timeline = Timeline(reliable=True)
    stamps = [round(i * 1000 / 29.97) for i in range(3000)]
    for pts in stamps:
        timeline.step(pts)
    expected = 2999 / (stamps[-1] * 0.001)
    assert timeline.rate.measure(0.001) == expected


def test_a_variable_rate_is_its_mean():
    steps = np.random.default_rng(0).choice([2000, 3000, 5000, 7000], 200)
    assert rate_of(np.cumsum(steps)) == pytest.approx(199 / (steps[1:].sum() / 90_000))


def test_timestamps_that_say_nothing_give_no_rate():
    assert rate_of([]) == rate_of([0]) == rate_of([NO_PTS] * 9) == 0
    assert rate_of([0, 3, 2, 5, 4, 7, 6]) == 0  # the order of the decoder


def test_steps_of_many_lengths_take_bounded_memory():
    rate = FrameRate()
    for step in range(1, 50_000):
        rate.add(step)
    assert len(rate._steps) <= 10_000


def test_a_backward_clock_is_a_gap():
    timeline = Timeline(reliable=True)
    joined = [timeline.step(int(pts)) for pts in [*REGULAR, *REGULAR]]
    assert joined.count(False) == 1 and not joined[30] and timeline.gaps == 1
