import pytest

from mme_core.report.remarks import remarks
from mme_core.report.words import counted, describe_spec, duration, kind_of, shorten, size
from mme_core.spec import TargetSpec
from mme_core.store import VideoTable


def table(**columns):
    count = len(columns["fps"])
    base = {"id": "", "path": "", "label": 0, "first": 0, "count": 20, "hp": 4, "wp": 4}
    base |= {"fps": 25.0, "height": 64, "width": 64, "frames": 100, "warnings": [], "shard": 0}
    base |= {"first_frame": 0}
    values = {name: [value] * count for name, value in base.items()}
    values |= {"id": [f"{i}.mp4" for i in range(count)], **columns}
    return VideoTable.from_rows([{n: v[i] for n, v in values.items()} for i in range(count)])


def test_every_field_that_matters_is_in_words():
    text = " ".join(describe_spec(TargetSpec(stride=3, points=4, length=7, camera="homography")))
    for part in (
        "Every third raw frame",
        "4 points (8 pixels apart)",
        "7 raw frames",
        "homography",
    ):
        assert part in text
    for frames, part in (
        ("jpeg", "JPEG files of quality 90"),
        ("lz4", "LZ4"),
        ("none", "No frames"),
    ):
        assert part in " ".join(describe_spec(TargetSpec(frames=frames)))
    tracked = " ".join(describe_spec(TargetSpec(stride=1, tracks="a:b", cells=("hog",))))
    assert "with the point tracker “a:b”" in tracked and "optical flow" not in tracked
    assert "Every raw frame" in tracked and "are stored: hog." in tracked
    assert "No frames are stored" in " ".join(describe_spec(TargetSpec(frames="none")))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("5 frames: too short for one trajectory of 6 steps (7 frames)",
         "N frames: too short for one trajectory of N steps (N frames)"),
        ("gaps: 3", "gaps"),
        ("frames stored twice: 30 of 210 pairs", "frames stored twice"),
        ("cannot open '/data/x 1.mp4'", "cannot open …"),
    ],
)  # fmt: skip
def test_texts_that_differ_in_numbers_are_one_kind(text, kind):
    assert kind_of(text) == kind


def test_mixed_frame_rates_are_noticed():
    titles = [one.title for one in remarks(table(fps=[25.0] * 50 + [30.0] * 50), [], 1)]
    assert titles == ["Frame rates differ: 25 to 30 fps"]
    assert remarks(table(fps=[25.0] * 99 + [30.0]), [], 1) == []  # one is an exception
    unknown = remarks(table(fps=[0.0, 25.0]), [], 1)
    assert [one.videos for one in unknown] == [["0.mp4"]]


def test_warnings_of_stage_1_are_grouped():
    texts = [["gaps: 1"], [], ["gaps: 12", "interlaced frames: 3"]]
    found = remarks(table(fps=[25.0] * 3, warnings=texts), [], 1)
    assert [one.title for one in found] == ["Gaps: 2 videos", "Interlaced frames: 1 video"]
    assert found[0].videos == ["0.mp4: gaps: 1", "2.mp4: gaps: 12"]


def test_short_videos_are_noticed():
    (found,) = remarks(table(fps=[25.0] * 2, count=[7, 8]), [], 1)
    assert found.videos == ["0.mp4"]


def test_numbers_have_fitting_units():
    assert [size(n) for n in (12, 1.5e3, 2e6, 3.4e12)] == ["12 B", "1.5 kB", "2 MB", "3.4 TB"]
    assert [size(n) for n in (999_700, 2.5e15)] == ["1,000 kB", "2,500 TB"]
    assert [duration(s) for s in (2.4, 162, 112_320)] == ["2.4 s", "2:42", "31.2 h"]
    assert duration(3600 * 2500) == "2,500 h"
    assert [counted(n, "video") for n in (0, 1, 1200)] == ["0 videos", "1 video", "1,200 videos"]
    assert shorten("a" * 30 + "z" * 30, 20) == "aaaaaa…" + "z" * 13
    assert len(shorten("x" * 99, 44)) == 44
