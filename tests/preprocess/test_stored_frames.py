import dataclasses

import pytest
from made_up_targets import make_store, tubelets
from motion import render, translation, write_video

from mme_core.extract import stream_tubelets
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from preprocess.stored_frames import StoredFrames, can_be_copied

COARSE = TargetSpec(short_side=64, long_side=80)
COUNT = 37  # more than are read at once


def test_each_sampled_frame_is_found_by_its_number(tmp_path):
    store = TargetStore(make_store(tmp_path / "s", [{"a": 2, "b": COUNT}], COARSE))
    stored, expected = StoredFrames(store, 1), tubelets(1, COUNT, spec=COARSE)
    for number in reversed(range(COARSE.hop * COUNT + 8)):
        tubelet, rest = divmod(number, COARSE.hop)
        sampled = tubelet < COUNT and rest in (0, COARSE.stride)
        coded = expected[tubelet].frames[rest // COARSE.stride] if sampled else None
        assert stored(number) == coded, number


def test_second_frames_are_found_where_tubelets_overlap(tmp_path):
    spec = dataclasses.replace(COARSE, stride=3, hop=2)
    store = TargetStore(make_store(tmp_path / "s", [{"a": 4}], spec))
    stored, expected = StoredFrames(store, 0), tubelets(0, 4, spec=spec)
    assert stored(1) is None
    assert stored(2) == expected[1].frames[0]
    assert stored(9) == expected[3].frames[1]


def test_frames_that_are_known_are_not_coded_again(tmp_path):
    path, spec = tmp_path / "v.mp4", TargetSpec(short_side=64, long_side=64, flow="dis-fast")
    write_video(path, render(translation(1, 0), 18, 64, 64))
    plain = [tubelet.frames for tubelet in stream_tubelets(path, spec)]
    known = [tubelet.frames for tubelet in stream_tubelets(path, spec, stored={4: b"JPEG"}.get)]
    assert known[0] == (plain[0][0], b"JPEG")
    assert known[1:] == plain[1:]


@pytest.mark.parametrize("change", [{"frames": "none"}, {"frames": "lz4"}, {"jpeg_quality": 50}])
def test_frames_of_another_coding_are_not_copied(change):
    other = dataclasses.replace(COARSE, **change)
    assert can_be_copied(COARSE, dataclasses.replace(COARSE, length=3))
    assert not can_be_copied(COARSE, other)
    assert not can_be_copied(other, COARSE)


def test_the_quality_of_jpeg_says_nothing_of_frames_in_lz4():
    lz4 = dataclasses.replace(COARSE, frames="lz4")
    assert can_be_copied(lz4, dataclasses.replace(lz4, jpeg_quality=50))
