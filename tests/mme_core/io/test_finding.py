"""Stage 1's warnings say where a stored video's frames are in its file."""

from motion import render, translation
from odd_videos import write_parts

from mme_core.extract import extract_video
from mme_core.io.finding import UNORDERED, first_frame
from mme_core.spec import TargetSpec


def test_a_warning_names_the_first_frame_of_the_part(tmp_path):
    frames = render(translation(1, 0), 20, 64, 64)
    path = write_parts(tmp_path / "glued.ts", [frames[:9], frames[:5, :48, :48], frames])
    spec = TargetSpec(stride=2, length=4, short_side=64, long_side=64)
    warnings = extract_video(path, spec).summary.warnings
    assert first_frame(warnings) == 14 and UNORDERED in warnings


def test_other_warnings_name_no_frame():
    assert first_frame(["gaps: 3", UNORDERED]) == first_frame([]) == 0
