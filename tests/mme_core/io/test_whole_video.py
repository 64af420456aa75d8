"""Whole videos: the frames that stage 1 sees, as one array."""

from fractions import Fraction

import numpy as np
import pytest
from motion import render, translation
from odd_videos import write_aspect, write_parts, write_turned

from mme_core import read_video
from mme_core.errors import VideoError

MOVING = render(translation(1.5, 0), 20, 64, 96, finest=6)


def test_frames_are_upright(tmp_path):
    frames = read_video(write_turned(tmp_path / "a.mp4", MOVING[:5], (0, 1, -1, 0)))
    assert frames.shape == (5, 96, 64, 3) and frames.dtype == np.uint8
    assert np.abs(frames[..., 1].astype(int) - np.rot90(MOVING[:5], -1, (1, 2))).mean() < 3


def test_frames_have_square_pixels(tmp_path):
    frames = read_video(write_aspect(tmp_path / "a.mp4", MOVING[:5], Fraction(4, 3)))
    assert frames.shape == (5, 64, 128, 3)


@pytest.mark.parametrize(("first", "second"), [(20, 8), (2, 20)])
def test_a_frame_size_that_changes_leaves_the_longest_part(tmp_path, first, second):
    path = write_parts(tmp_path / "a.ts", [MOVING[:first], MOVING[:second, :48, :64]])
    expected = MOVING if first == 20 else MOVING[:, :48, :64]
    assert np.abs(read_video(path)[..., 1].astype(int) - expected).mean() < 5


def test_a_file_that_is_no_video_is_refused_with_the_reason(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(VideoError, match="truncated or not a video"):
        read_video(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="no such file"):
        read_video(tmp_path / "absent.mp4")
