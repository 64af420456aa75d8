"""Labelled videos as clips: the same frames from files and from a store, and what is missing."""

from fractions import Fraction

import numpy as np
import pytest
from labelled import source_of, write_square
from made_up_targets import make_store
from motion import render, translation, write_video
from odd_videos import write_aspect, write_edited, write_parts

from mme_core.datasets import VideoItem
from mme_core.errors import UsageError, VideoError
from mme_core.io.video import Video
from mme_core.store import TargetStore
from train.data.sources import (
    FileSource,
    StoreSource,
    frame_stride,
    open_source,
    open_sources,
    packet_pts,
)
from train.recipes.classification import LabelledDataConfig, SplitDataConfig


def test_frames_of_a_file_are_those_of_a_plain_decode(labelled_set):
    source = source_of(labelled_set)
    with Video(source.items[0].path) as opened:
        frames = np.stack([frame.rgb() for frame in opened])
    seen = source.read(0, lambda count: np.array([[count - 1, 3], [3, 0]]))
    assert seen.shape == (2, 2, 32, 48, 3)
    assert (seen == frames[[[11, 3], [3, 0]]]).all()


def test_a_file_with_fewer_frames_than_packets_is_counted(labelled_set, monkeypatch):
    source = source_of(labelled_set)
    longer = np.append(packet_pts(source.items[0].path), 10**6)
    monkeypatch.setattr("train.data.sources.packet_pts", lambda path: longer)
    asked = []

    def choose(count):
        asked.append(count)
        return np.array([count - 1])

    assert source.read(0, choose).shape == (1, 32, 48, 3)
    assert asked == [13, 12]


def test_frames_of_a_store_are_every_stride_th_of_the_file(labelled_store, labelled_set):
    source = StoreSource(TargetStore(labelled_store))
    assert source.step == 2
    assert list(source.class_names) == ["left", "right"]
    counts = []
    frames = source.read(0, lambda count: counts.append(count) or np.arange(count))
    assert counts == [6]
    plain = source_of(labelled_set).read(0, lambda count: np.arange(0, count, 2))
    error = np.abs(frames.astype(int) - plain).mean()
    assert frames.shape == plain.shape and error < 6  # JPEG


def test_frames_of_a_stores_videos_can_come_from_the_files(labelled_store, labelled_set):
    data = LabelledDataConfig(frames="video", root="/")
    source = open_source(data, str(labelled_store), root="/", split=None)
    assert list(source.class_names) == ["left", "right"] and source.step == 1
    assert frame_stride(None, source) == 2  # the store's
    assert source.missing() == [("left/9.mp4", "too short")]
    files = source_of(labelled_set)
    seen, plain = (s.read(4, lambda count: np.arange(count)) for s in (source, files))
    assert (seen == plain).all()


def test_the_folder_of_a_stores_videos_must_be_given(tmp_path):
    store = make_store(tmp_path / "store", [{"left/0.mp4": 11}])
    with pytest.raises(UsageError, match=r"data\.root is not set: the folder of the video files"):
        open_source(LabelledDataConfig(frames="video"), str(store), root=None, split=None)


def test_strides_count_raw_frames(labelled_set):
    source = source_of(labelled_set)
    assert frame_stride(None, source) == 4
    assert frame_stride(3, source) == 3
    source.step = source.stride = 2
    assert frame_stride(None, source) == 1
    assert frame_stride(6, source) == 3
    with pytest.raises(UsageError, match=r"data\.stride=3 cannot be read from .*spec\.stride=2"):
        frame_stride(3, source)
    source.step = source.stride = 1  # a store of every frame
    assert frame_stride(None, source) == 1


def test_what_a_data_set_lacks_is_said(labelled_set, tmp_path, capsys):
    rows = "val/left/0.mp4,left,val", "val/left/nowhere.mp4,left,val"
    (tmp_path / "val").symlink_to(labelled_set / "val")
    (tmp_path / "split.csv").write_text("\n".join(["path,class,split", *rows]))
    open_source(LabelledDataConfig(dataset="folder"), None, root=str(tmp_path), split="val")
    said = capsys.readouterr().err
    assert "folder, val: missing videos of the list: 1 (val/left/nowhere.mp4)" in said
    (tmp_path / "all.csv").write_text("val/left/0.mp4 0\nval/left/nowhere.mp4 0\n")
    root = str(tmp_path / "all.csv")
    open_source(LabelledDataConfig(dataset="csv"), None, root=root, split=None)
    assert "csv: missing videos of the list: 1" in capsys.readouterr().err


def test_videos_of_an_official_list_that_are_not_there_are_asked_and_not_read(tmp_path):
    write_square(tmp_path / "val" / "a_000001_000011.mp4", 1, 0)
    rows = ["label,youtube_id,time_start,time_end", "left,a,1,11", "left,b,1,11"]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    source = open_source(LabelledDataConfig(dataset="k400"), None, root=str(tmp_path), split="val")
    assert len(source.ids) == 1
    assert source.missing() == [("b 1–11 s", "in the list, but not in the folder")]


MOVING = render(translation(1.5, 0), 40, 64, 96, finest=6)


def read_all(path, **options):
    source = FileSource([VideoItem("a", str(path))], (), **options)
    return source.read(0, np.arange)


@pytest.mark.parametrize(("first", "second"), [(20, 8), (2, 20)])
def test_a_frame_size_that_changes_leaves_the_longest_part(tmp_path, first, second):
    path = write_parts(tmp_path / "a.ts", [MOVING[:first], MOVING[:second, :48, :64]])
    frames = read_all(path)
    expected = MOVING[:20] if first == 20 else MOVING[:20, :48, :64]
    assert np.abs(frames[..., 1].astype(int) - expected).mean() < 5


def test_frames_of_glued_recordings_are_not_mixed(tmp_path):
    path = write_parts(tmp_path / "a.ts", [MOVING[:20], MOVING[20:]])
    source = FileSource([VideoItem("a", str(path))], ())
    frames = source.read(0, lambda count: np.arange(2, count, 4))
    assert np.abs(frames[..., 1].astype(int) - MOVING[2::4]).mean() < 5


def test_a_clip_in_the_middle_counts_the_frames_that_are_shown(tmp_path):
    path = write_edited(tmp_path / "a.mp4", MOVING, 10)
    assert np.abs(read_all(path)[..., 1].astype(int) - MOVING[10:40]).mean() < 5


def test_frames_have_square_pixels_where_the_store_has(tmp_path):
    path = write_aspect(tmp_path / "a.mp4", MOVING[:5], Fraction(4, 3))
    assert read_all(path).shape == (5, 64, 128, 3)
    assert read_all(path, square_pixels=False).shape == (5, 64, 96, 3)


def test_keys_that_do_not_act_on_a_store_are_named(labelled_store, capsys):
    data = SplitDataConfig(val_root="/nowhere")
    with pytest.raises(UsageError, match=r"^data\.val_root=/nowhere is not read"):
        open_sources(data, str(labelled_store), str(labelled_store))
    open_source(LabelledDataConfig(), str(labelled_store), root=None, split="val")
    assert capsys.readouterr().err == ""
    open_source(LabelledDataConfig(), str(labelled_store), root=None, split="other")
    assert "all its videos are used; split 'other' is" in capsys.readouterr().err


def test_several_stores_are_refused():
    with pytest.raises(UsageError, match=r"\[a, b\]: only `mme pretrain` reads several stores"):
        open_source(LabelledDataConfig(), "[a, b]", root=None, split=None)


def test_a_video_of_one_frame_is_a_still_picture(tmp_path):
    write_video(tmp_path / "a.mp4", MOVING[:1])
    with pytest.raises(VideoError, match="a still picture"):
        read_all(tmp_path / "a.mp4")
