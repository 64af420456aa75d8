import numpy as np
import pytest
from made_up_targets import make_store

from mme_core.clips.dataset import ClipDataset
from mme_core.clips.speeds import second_frame, span
from mme_core.errors import UsageError
from mme_core.spec import TUBELET, TargetSpec


@pytest.mark.parametrize("hop", [1, 2, 4, 8])
@pytest.mark.parametrize("speed", [1, 2, 3, 5])
def test_second_frame_is_the_stride_after_the_first(hop, speed):
    spec = TargetSpec(stride=4, hop=hop)
    later, member = second_frame(spec, speed)
    assert later * hop + member * spec.stride == speed * spec.stride
    assert second_frame(spec, 1) == (0, 1)


@pytest.mark.parametrize("hop", [1, 2, 4])
def test_clip_is_read_at_its_speed_from_the_whole_video(tmp_path, hop):
    """Targets begin where the clip's tubelets do, speed · stride · 2 raw frames apart."""
    spec = TargetSpec(short_side=64, long_side=80, stride=2, hop=hop)
    make_store(tmp_path / "store", ({"a.mp4": 44},), spec)
    clips = ClipDataset(tmp_path / "store", frames=6, image_size=48, flip=False, speeds=[3])
    starts = set()
    for epoch in range(60):
        draw, sample = clips.draw((epoch, 0)), clips[epoch, 0]
        step = 3 * TUBELET * spec.stride // hop
        rows = [draw.start + step * tubelet for tubelet in range(3)]
        whole = [clips.store.read_coded(0, row, 1).position[0] for row in rows]
        view = draw.views[0]
        for found, stored in zip(sample["position"].numpy(), whole):
            cut = stored[view.top : view.top + 3, view.left : view.left + 3]
            np.testing.assert_array_equal(found, cut)
        starts.add(draw.start)
    assert max(starts) + span(spec, 3, 3) <= 44 and len(starts) > 5


def test_short_videos_take_the_smallest_speed(tmp_path):
    spec = TargetSpec(short_side=64, long_side=80, stride=2, hop=2)
    make_store(tmp_path / "store", ({"a.mp4": 12, "b.mp4": 3},), spec)
    clips = ClipDataset(tmp_path / "store", frames=6, image_size=48, speeds=[2, 4])
    assert {clips.draw((epoch, 0)).speed for epoch in range(9)} == {2}
    assert clips.draw((0, 1)).speed == 2 and clips[0, 1]["frames"].shape[0] == 6
    with pytest.raises(UsageError, match=r"speeds=\[2\] needs source=store"):
        ClipDataset(tmp_path / "store", frames=6, image_size=48, speeds=[2], source="video")
