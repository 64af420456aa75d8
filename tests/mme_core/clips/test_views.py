"""Sampling and crops against values worked out by hand from VideoMAE's procedure."""

import numpy as np

from mme_core.clips import views


class FixedRng:
    """Gives the numbers it was made with, whatever is asked."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def integers(self, low, high=None, size=None):
        number = self.numbers.pop(0)
        assert number < (low if high is None else high)
        return number


def test_dense_training_clip_spans_clip_times_stride():
    # 100 frames, span 16·4 = 64, end drawn 70: linspace(6, 70, 16) has steps of 64/15 = 4.2667;
    # 6, 10.27, 14.53, 18.8, 23.07, 27.33, 31.6, 35.87, 40.13, 44.4, 48.67, 52.93, 57.2, 61.47,
    # 65.73, 70 → cut, and the last is 69 at most
    got = views.train_indices("dense", 100, 16, 4, FixedRng(70))
    want = [6, 10, 14, 18, 23, 27, 31, 35, 40, 44, 48, 52, 57, 61, 65, 69]
    assert got.tolist() == want


def test_dense_training_clip_of_a_short_video_repeats_its_last_frame():
    # 20 frames ≤ 64: linspace(0, 20, 5) = 0, 5, 10, 15, 20, then the last frame, 19
    got = views.train_indices("dense", 20, 16, 4, FixedRng())
    assert got.tolist() == [0, 5, 10, 15] + [19] * 12


def test_dense_training_clip_at_stride_one_is_consecutive():
    assert views.train_indices("dense", 40, 8, 1, FixedRng(20)).tolist() == list(range(12, 20))


def test_dense_test_clips_start_evenly():
    # frames 0, 4, … 396 are 100; room 84; 7 starts at int(i · 84 / 6) = 0, 14, … 84
    got = views.test_indices("dense", 400, 16, 4, 7)
    assert got.shape == (7, 16)
    assert got[:, 0].tolist() == [0, 56, 112, 168, 224, 280, 336]
    assert got[3].tolist() == list(range(168, 168 + 64, 4))
    # 5 clips over room 9 (25 read frames): int(i · 9 / 4) = 0, 2, 4, 6, 9
    assert (views.test_indices("dense", 25, 16, 1, 5)[:, 0]).tolist() == [0, 2, 4, 6, 9]


def test_dense_test_clip_of_a_short_video_is_padded():
    # 30 frames read at 0, 4, … 28; the last one read fills up
    got = views.test_indices("dense", 30, 16, 4, 2)
    assert got.tolist() == [[0, 4, 8, 12, 16, 20, 24, 28] + [28] * 8] * 2
    assert views.test_indices("dense", 64 + 40, 16, 4, 1)[0, 0] == 4 * (26 - 16) // 2


def test_segment_training_takes_one_frame_of_each_segment():
    # 35 frames in 16 segments: each 2 long
    rng = np.random.default_rng(0)
    for _ in range(20):
        got = views.train_indices("segment", 35, 16, 1, rng)
        assert ((got >= np.arange(16) * 2) & (got < np.arange(16) * 2 + 2)).all()
    assert (np.diff(views.train_indices("segment", 9, 16, 1, rng)) >= 0).all()


def test_segment_test_clips_are_starts_and_middles():
    # 40 frames, 16 segments: tick 2.5; clip 0 int(2.5 x), clip 1 int(1.25 + 2.5 x)
    got = views.test_indices("segment", 40, 16, 4, 2)
    assert got[0].tolist() == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]
    assert got[1].tolist() == [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]


def test_a_single_segment_clip_takes_the_middles():
    # 40 frames, tick 2.5, from 1.25; as VideoMAE validates
    got = views.test_indices("segment", 40, 16, 4, 1)
    assert got.tolist() == [[1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]]


def test_test_crops_lie_along_the_longer_side():
    # 240×320 → short side 224: width int(224 · 320 / 240) = 298; step (298 − 224) / 2 = 37
    assert views.short_side_size(240, 320, 224) == (224, 298)
    assert views.test_crops(224, 298, 224, 3) == [(0, 0), (0, 37), (0, 74)]
    assert views.test_crops(299, 224, 224, 3) == [(0, 0), (37, 0), (75, 0)]
    assert views.test_crops(224, 298, 224, 1) == [(0, 37)]
    assert views.test_crops(224, 224, 224, 3) == [(0, 0)] * 3


def test_test_views_are_clip_major():
    clips = [np.full((2, 8, 16, 3), value, np.uint8) for value in (10, 20)]
    seen = views.test_views(clips, 8, 3)
    assert seen.shape == (6, 2, 8, 8, 3)
    assert seen[:, 0, 0, 0, 0].tolist() == [10, 10, 10, 20, 20, 20]


def test_still_repeats_the_middle_frame():
    assert views.still(np.array([[0, 4, 8, 12], [1, 5, 9, 13]])).tolist() == [[8] * 4, [9] * 4]


def test_dense_training_clip_ends_before_the_last_frame_as_published():
    for seed in range(30):
        got = views.train_indices("dense", 66, 16, 4, np.random.default_rng(seed))
        assert got[-1] in (63, 64)


def test_sizes_of_upright_frames():
    assert views.short_side_size(322, 240, 224) == (300, 224)  # int(300.53)
