"""Gaps and order of timestamps, from the numbers alone."""

import numpy as np
import pytest

from mme_core.io.timeline import NO_PTS, Timeline


def test_unordered_timestamps_are_no_gaps():
    timeline = Timeline(reliable=True)
    assert all(timeline.step(pts) for pts in (0, 3, 2, 5, 4))
    timeline.lose(7, reorders=False)
    assert [timeline.step(pts) for pts in (8, 7, 10, 9)] == [False, True, True, True]


def test_rounded_timestamps_of_constant_rate_have_no_gaps():
    timeline = Timeline(reliable=True)
    assert all(timeline.step(round(i * 1000 / 29.97)) for i in range(300))


def test_a_timestamp_given_twice_does_not_increase():
    timeline = Timeline(reliable=True)
    assert all(timeline.step(pts) for pts in (0, 1, 1, 2)) and not timeline.increasing


def test_a_gap_needs_ten_equal_steps_before():
    timeline = Timeline(reliable=True)
    assert all(timeline.step(pts) for pts in (0, 2, 4, 6, 10))
    timeline = Timeline(reliable=True)
    assert all(timeline.step(pts) for pts in range(0, 22, 2)) and not timeline.step(24)
    timeline = Timeline(reliable=True)
    steps = [2, 3] * 10 + [6]  # a rate that varies by half
    assert all(timeline.step(int(pts)) for pts in np.cumsum(steps))


@pytest.mark.parametrize(("reorders", "doubtful"), [(False, 1), (True, 5)])
def test_broken_packet_without_timestamp_leaves_doubt(reorders, doubtful):
    timeline = Timeline(reliable=True)
    assert timeline.step(0)
    timeline.lose(None, reorders)
    assert [timeline.step(pts) for pts in range(1, 9)].count(False) == doubtful


def test_a_restarted_clock_is_a_gap_and_a_few_frames_back_are_not():
    assert all(map(Timeline(reliable=True).step, (*range(40), 37)))
    timeline = Timeline(reliable=True)
    assert all(map(timeline.step, range(40)))
    assert not timeline.step(0)


def test_timestamps_that_go_backwards_are_no_gaps():
    timeline = Timeline(reliable=True)
    assert all(timeline.step(pts) for pts in (0, 1, 3, 2, 5, 4, 4, NO_PTS, 9))
    assert not timeline.increasing
