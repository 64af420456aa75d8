from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from motion import displacement, render, rotation, write_video
from odd_videos import write_parts

from mme_core.canvas import grid_points
from mme_core.errors import StoreError, UsageError, VideoError
from mme_core.extract import extract_video, stream_tubelets
from mme_core.extract.kept_flow import STEP, FlowFile, KeptFlow, read_shapes
from mme_core.extract.video_targets import LaterPartError
from mme_core.spec import TargetSpec
from mme_core.targets import decode_displacement, unpack_valid

SIZE = (37, 52)  # odd and even
LUMA = np.zeros(SIZE, np.uint8)


def smooth(seed, size=SIZE):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.normal(0, 2, (3, 4, 2)).astype(np.float32), size[::-1])


@pytest.fixture
def path(tmp_path):
    """The flow of videos a (three pairs), of one that was abandoned, and of b/c (one pair)."""
    file = FlowFile(tmp_path / "flow" / "00000.h5")
    for pair in range(3):
        file.add(smooth(pair))
    file.end("a")
    file.add(smooth(8))
    file.abandon()
    file.add(smooth(9))
    file.end("b/c")
    file.close()
    return str(tmp_path / "flow" / "00000.h5")


def test_flow_comes_back_as_exact_as_promised(path):
    with KeptFlow(path, "a") as kept:
        for pair in (2, 0, 1):
            error = np.abs(kept(pair, LUMA, LUMA) - smooth(pair))
            assert np.quantile(error, 0.9) < 0.1 and np.median(error) < 2 * STEP
        kept.check_end(4)
    with KeptFlow(path, "b/c") as kept:
        assert np.median(np.abs(kept(0, LUMA, LUMA) - smooth(9))) < 2 * STEP


def test_constant_flow_is_rounded_by_half_a_step_at_most(tmp_path):
    file = FlowFile(tmp_path / "1.h5")
    flow = np.broadcast_to(np.float32([1.237, -300.111]), (*SIZE, 2))
    file.add(flow)
    file.add(flow * 100)
    file.end("v")
    file.close()
    with KeptFlow(str(tmp_path / "1.h5"), "v") as kept:
        assert np.abs(kept(0, LUMA, LUMA) - flow).max() <= STEP / 2 + 1e-4
        assert kept(1, LUMA, LUMA)[..., 1].max() == -511.984375  # cut off, not wrapped around


def test_the_documented_lines_read_it(path):
    with h5py.File(path) as file:
        video = file["0"]
        flow = video[1] * video.attrs["step"]
        assert video.attrs["id"] == "a" and len(video) == 3
    assert flow.shape == (19, 26, 2)
    np.testing.assert_allclose(np.median(flow), np.median(smooth(1)), atol=0.5)


def test_another_video_or_damage_is_noticed(path, tmp_path):
    with KeptFlow(path, "a") as kept:
        with pytest.raises(VideoError, match=r"4 frames of \(37, 52\): the video was changed"):
            kept(3, LUMA, LUMA)
        with pytest.raises(VideoError, match="the video was changed"):
            kept(0, LUMA[1:], LUMA[1:])
        with pytest.raises(VideoError, match="the file has 3 frames"):
            kept.check_end(3)
    with pytest.raises(StoreError, match="holds no flow of b"):
        KeptFlow(path, "b")
    with pytest.raises(StoreError, match="missing or damaged"):
        KeptFlow(str(tmp_path / "none.h5"), "a")
    assert read_shapes(path) == {"a": (3, 19, 26, 2), "b/c": (1, 19, 26, 2)}
    with h5py.File(path) as file:
        offset = file["0"].id.get_chunk_info(1).byte_offset
    with Path(path).open("r+b") as file:
        file.seek(offset + 100)
        byte = file.read(1)[0]
        file.seek(offset + 100)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(StoreError, match=r"missing or damaged.*`mme repair`"):
        read_shapes(path)
    with pytest.raises(StoreError, match="pair 1 of a"), KeptFlow(path, "a") as kept:
        kept(1, LUMA, LUMA)


SPEC = TargetSpec(short_side=96, long_side=128, frames="none")


def never(before, luma):
    """A flow plug-in that must not be called."""
    raise AssertionError("flow was computed")


def test_other_lengths_and_strides_come_from_kept_flow(tmp_path):
    motion = rotation(1.5, (64, 48))
    write_video(tmp_path / "v.mp4", render(motion, 20, 96, 128))
    file = FlowFile(tmp_path / "0.h5")
    kept_run = stream_tubelets(tmp_path / "v.mp4", SPEC, keep=file.add)
    plain = list(stream_tubelets(tmp_path / "v.mp4", SPEC))
    for one, other in zip(kept_run, plain, strict=True):
        np.testing.assert_array_equal(one.position, other.position)
        np.testing.assert_array_equal(one.shape, other.shape)
    file.end("v")
    file.close()
    assert read_shapes(str(tmp_path / "0.h5")) == {"v": (19, 48, 64, 2)}
    spec = TargetSpec(
        short_side=96, long_side=128, stride=3, hop=2, length=8, flow="test_kept_flow:never"
    )
    with KeptFlow(str(tmp_path / "0.h5"), "v") as kept:
        made = list(stream_tubelets(tmp_path / "v.mp4", spec, kept=kept))
    exact = extract_video(tmp_path / "v.mp4", TargetSpec(**(spec.to_dict() | {"flow": SPEC.flow})))
    assert len(made) == len(exact.valid) == 9
    for tubelet, displacement_, valid in zip(made, exact.displacement, exact.valid):
        found = decode_displacement(tubelet.position, tubelet.moments, spec)
        both = valid & unpack_valid(tubelet.valid, 4)
        if both.any():
            assert np.median(np.abs(found - displacement_)[both]) < 0.03
    true = displacement(motion, 4, grid_points(6, 8, spec))
    found = decode_displacement(made[2].position, made[2].moments, spec)[..., 0, :]
    assert np.median(np.abs(found - true)) < 0.1


def test_kept_flow_may_be_that_of_a_later_part(tmp_path):
    frames = render(rotation(1.5, (48, 48)), 20, 96, 96)
    path = write_parts(tmp_path / "v.ts", [frames[:9, :64], frames])
    file = FlowFile(tmp_path / "0.h5")
    stream = stream_tubelets(path, SPEC, keep=file.add)
    with pytest.raises(LaterPartError):
        list(stream)
    file.abandon()
    computed = list(stream)
    file.end("v")
    file.close()
    with KeptFlow(str(tmp_path / "0.h5"), "v") as kept:
        stream = stream_tubelets(path, SPEC, kept=kept)
        with pytest.raises(LaterPartError):
            list(stream)
        taken = list(stream)
    assert len(taken) == len(computed) == 2
    for one, other in zip(taken, computed):
        np.testing.assert_allclose(one.moments[..., :4], other.moments[..., :4], atol=0.2)


def test_kept_flow_of_another_file_is_refused(path, tmp_path):
    write_video(tmp_path / "v.mp4", render(rotation(1, (48, 48)), 9, 96, 96))
    with KeptFlow(path, "a") as kept, pytest.raises(VideoError, match="the video was changed"):
        list(stream_tubelets(tmp_path / "v.mp4", SPEC, kept=kept))


def test_the_check_needs_flow_both_ways(path, tmp_path):
    write_video(tmp_path / "v.mp4", render(rotation(1, (26, 18)), 9, *SIZE))
    spec = TargetSpec(short_side=37, long_side=52, check=True)
    with KeptFlow(path, "a") as kept, pytest.raises(UsageError, match="only forward flow"):
        list(stream_tubelets(tmp_path / "v.mp4", spec, kept=kept))
