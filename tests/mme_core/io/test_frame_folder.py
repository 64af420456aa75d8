"""Folders of pictures are read as videos: order, gaps, damage, random access."""

import time

import cv2
import numpy as np
import pytest
from motion import render, translation

from mme_core.errors import VideoError
from mme_core.extract import extract_video
from mme_core.io.frame_folder import FrameFolder, picture_numbers
from mme_core.io.video import open_video, read_frames
from mme_core.spec import TargetSpec

FRAMES = render(translation(1.3, 0.4), 30, 64, 96, finest=4)


def write(folder, numbers, name="{:05d}.png", frames=FRAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for frame, number in zip(frames, numbers):
        cv2.imwrite(str(folder / name.format(number)), frame)
    return folder


def decode(folder):
    with open_video(folder) as video:
        return video, list(video)


@pytest.mark.parametrize("name", ["{:05d}.png", "{}.png", "img_{:05d}.jpg", "frame{}.JPEG"])
def test_pictures_come_in_the_order_of_their_numbers(tmp_path, name):
    video, frames = decode(write(tmp_path, range(1, 31), name))
    assert [frame.number for frame in frames] == list(range(30))
    assert [frame.pts for frame in frames] == list(range(1, 31))
    assert all(frame.joined for frame in frames) and not video.timeline.gaps
    lumas = np.array([frame.luma(lambda image: image) for frame in frames], int)
    assert frames[0].shape == (64, 96)
    assert np.abs(lumas - FRAMES).mean() < 2


def test_colours_of_pictures_are_right(tmp_path):
    image = np.full((32, 48, 3), (20, 90, 200), np.uint8)  # blue, green, red
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), image)
    frame = decode(tmp_path)[1][0]
    assert frame.bgr()[0, 0].tolist() == [20, 90, 200]
    assert frame.rgb()[0, 0].tolist() == [200, 90, 20]


@pytest.mark.parametrize("step", [1, 5])
def test_a_missing_number_is_a_gap(tmp_path, step):
    numbers = [number for number in range(0, 30 * step, step) if number != 7 * step]
    video, frames = decode(write(tmp_path, numbers))
    assert [frame.pts for frame in frames if not frame.joined] == [8 * step]
    assert video.timeline.gaps == 1


def test_a_broken_picture_is_left_out_and_counted(tmp_path):
    write(tmp_path, range(10))
    (tmp_path / "00004.png").write_bytes((tmp_path / "00004.png").read_bytes()[:100])
    (tmp_path / "00006.png").write_bytes(b"")
    video, frames = decode(tmp_path)
    assert [frame.pts for frame in frames] == [0, 1, 2, 3, 5, 7, 8, 9]
    assert [frame.pts for frame in frames if not frame.joined] == [5, 7]
    assert video.broken_packets == 2


def test_one_series_of_pictures_is_the_video():
    numbers = [f"{i:05d}.jpg" for i in (1, 2, 3)]
    assert list(picture_numbers([*numbers, "cover.jpg", "thumb_1.jpg"]).values()) == numbers
    flows = [f"flow_{axis}_{name}" for axis in "xy" for name in numbers]
    images = [f"img_{name}" for name in numbers]
    assert list(picture_numbers([*flows, *images]).values()) == images
    assert picture_numbers(["cover.jpg", "1.jpg", "README"]) == {}
    with pytest.raises(VideoError, match=r"several series of pictures \(depth_…\.png, img_…\.png"):
        picture_numbers([f"{kind}_{i}.png" for kind in ("img", "depth") for i in (1, 2)])


def test_any_pictures_can_be_read(tmp_path):
    write(tmp_path, range(1, 31))
    everything = np.stack([frame.rgb() for frame in decode(tmp_path)[1]])
    assert (read_frames(tmp_path, [3, 8, 20]) == everything[[3, 8, 20]]).all()
    assert (read_frames(tmp_path, [3, 8], [4, 9]) == everything[[3, 8]]).all()
    with pytest.raises(VideoError, match=r"no frame 40; has the folder changed\?"):
        read_frames(tmp_path, [3, 40])
    with pytest.raises(VideoError, match="no picture 41"):
        read_frames(tmp_path, [3, 40], [4, 41])


def test_pictures_of_several_sizes_cannot_be_a_clip(tmp_path):
    write(tmp_path, range(4))
    cv2.imwrite(str(tmp_path / "00004.png"), FRAMES[4][:32])
    with pytest.raises(VideoError, match="the size of the frames changes"):
        read_frames(tmp_path, [3, 4])


def test_folders_without_frames_say_so(tmp_path):
    with pytest.raises(VideoError, match="is a folder, neither a video nor numbered pictures"):
        FrameFolder(tmp_path)
    write(tmp_path, range(4))
    with pytest.raises(VideoError, match="took longer than the time limit"):
        list(FrameFolder(tmp_path, time.monotonic() - 1))


def test_targets_of_pictures_follow_the_motion(tmp_path):
    spec = TargetSpec(short_side=64, long_side=96, stride=1, length=3)
    found = extract_video(write(tmp_path, range(30)), spec)
    assert (found.summary.frames, found.summary.fps, found.summary.warnings) == (30, 0.0, ())
    moves = found.displacement[found.valid]
    assert np.allclose(np.median(moves, axis=(0, 1)), (1.3, 0.4), atol=0.1)
