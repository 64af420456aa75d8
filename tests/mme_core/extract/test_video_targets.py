import dataclasses
import gc
import weakref
from fractions import Fraction

import av
import cv2
import motion
import numpy as np
import pytest
from odd_videos import write_aspect, write_parts

from mme_core import targets
from mme_core.canvas import plan_canvas
from mme_core.errors import UsageError, VideoError
from mme_core.extract import extract_video, stream_tubelets
from mme_core.extract.video_targets import LaterPartError
from mme_core.frame_codec import decode_frames
from mme_core.spec import TargetSpec

SMALL = TargetSpec(short_side=64, long_side=80, flow="dis-fast")
CENTRE = (170.0, 128.0)
MOTIONS = {
    "slow": motion.translation(0.9, 0.0),
    "fast": motion.translation(-3.7, 2.2),
    "rotation": motion.rotation(1.2, CENTRE),
    "zoom in": motion.zoom(1.02, CENTRE),
    "zoom out": motion.zoom(1 / 1.015, CENTRE),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("extract")


def still(first, second):
    return np.zeros((*first.shape, 2), np.float32)


def alone(first, second):
    """What a worker of one core expects, and what makes flow the same on every machine."""
    assert cv2.getNumThreads() == 1
    return still(first, second)


def exact_displacement(moves, canvas, found, spec):
    """Exact motion, canvas pixels, along the exact tracks of the grid."""
    offset = np.array([canvas.left, canvas.top])
    scale = np.array([canvas.width / canvas.resized[1], canvas.height / canvas.resized[0]])
    exact = np.empty_like(found.displacement)
    for n in range(len(exact)):
        source = (found.points[n, ..., 0, :] + offset + 0.5) * scale - 0.5
        for step in range(spec.length):
            moved = motion.displacement(moves, n * spec.hop + step, source)
            exact[n, ..., step, :] = moved / scale
            source = source + moved
    return exact


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize(("height", "stride"), [(256, 4), (192, 2), (384, 3)])
def test_displacement_is_right_to_a_tenth_of_a_pixel(folder, name, height, stride):
    size, scale = (height, height * 340 // 256), height / 256
    zoomed = MOTIONS[name]  # the motion of a 256-pixel frame, seen at this resolution

    def moves(r):
        matrix = zoomed(r)
        return np.column_stack([matrix[:, :2], matrix[:, 2] * scale])

    spec = TargetSpec(stride=stride)
    path = folder / f"{name} {height}.mp4"
    motion.write_video(path, motion.render(moves, stride + 7, *size, finest=8 * scale))
    found = extract_video(path, spec)
    exact = exact_displacement(moves, plan_canvas(*size, spec), found, spec)
    limit = np.array(found.frames.shape[2:0:-1]) - 17
    interior = ((found.points >= 16) & (found.points <= limit)).all((-1, -2)) & found.valid
    error = np.linalg.norm(found.displacement - exact, axis=-1)[interior]
    assert interior[0].mean() > 0.4
    assert np.median(error) <= 0.1 and np.percentile(error, 90) <= 0.3


def test_hog_follows_the_texture(folder):
    path = folder / "follow.mp4"
    frames = motion.render(motion.translation(4.3, 1.0), 9, 192, 256, finest=6)
    motion.write_video(path, frames)
    spec = TargetSpec()
    moving = extract_video(path, spec)
    fixed = extract_video(path, dataclasses.replace(spec, flow=f"{__name__}:still"))
    kept = moving.valid

    def similarity(hog):
        first, last = hog[kept][:, 0], hog[kept][:, 5]
        norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(last, axis=-1)
        return np.median((first * last).sum(-1) / norms)

    assert similarity(moving.hog) >= 0.98 and similarity(fixed.hog) <= 0.90


def test_the_arrays_and_the_stream_agree(pan):
    whole = extract_video(pan, SMALL)
    stream = stream_tubelets(pan, SMALL)
    tubelets = list(stream)
    assert stream.summary == whole.summary and len(tubelets) == len(whole.valid) == 5
    assert [t.first for t in tubelets] == [0, 8, 16, 24, 32]
    assert whole.pts.tolist() == [[512 * r, 512 * (r + 4)] for r in range(0, 40, 8)]
    for n, coded in enumerate(tubelets):
        position, shape, moments = targets.encode(whole.displacement[n], whole.hog[n], SMALL)
        assert (coded.position == position).all() and (coded.shape == shape).all()
        assert (coded.moments == moments).all() and (coded.moments == whole.moments[n]).all()
        assert (targets.unpack_valid(coded.valid, 4) == whole.valid[n]).all()
        assert (coded.pts == whole.pts[n]).all() and coded.homography is None
        for jpeg, frame in zip(coded.frames, whole.frames[2 * n : 2 * n + 2]):
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            assert image.shape == frame.shape
            assert np.abs(image.astype(int) - frame).mean() < 4
    assert np.allclose(np.diff(whole.points, axis=-2), whole.displacement, atol=1e-4)


def test_every_moving_patch_has_mean_0_and_deviation_1(pan):
    whole = extract_video(pan, SMALL)
    for values, raw in ((whole.position, whole.displacement), (whole.shape, whole.hog)):
        assert (raw.std((-3, -2, -1)) > 0.01).all()
        assert np.allclose(values.mean((-3, -2, -1)), 0, atol=1e-4)
        assert np.allclose(values.std((-3, -2, -1)), 1, atol=1e-3)


def test_number_of_threads_does_not_change_the_bytes(pan):
    spec = TargetSpec(hop=8, length=2, camera="homography")
    runs = []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        runs.append(list(stream_tubelets(pan, spec)))
        assert cv2.getNumThreads() == threads
    for one, two in zip(*runs, strict=True):
        for name, value in vars(one).items():
            assert np.array_equal(value, getattr(two, name)), name


def test_extraction_uses_one_thread(pan):
    cv2.setNumThreads(2)
    assert (
        len(list(stream_tubelets(pan, dataclasses.replace(SMALL, flow=f"{__name__}:alone")))) == 5
    )


@pytest.mark.parametrize("codec", ["libx264", "rawvideo"])
def test_a_mirrored_video_has_mirrored_targets(folder, codec):
    frames = motion.render(motion.rotation(1.5, (60, 40)), 10, 128, 160, finest=6)
    suffix = {"libx264": "mp4", "rawvideo": "avi"}[codec]
    paths = [folder / f"{name}.{suffix}" for name in ("straight", "mirrored")]
    options = {} if codec == "rawvideo" else None
    motion.write_video(paths[0], frames, codec, options=options)
    motion.write_video(paths[1], frames[..., ::-1].copy(), codec, options=options)
    spec = TargetSpec(short_side=128, long_side=160)
    straight, mirrored = (extract_video(path, spec) for path in paths)
    swap = [1, 0, 3, 2]
    displacement = mirrored.displacement[:, :, ::-1, swap] * np.array([-1, 1], np.float32)
    assert np.median(np.abs(displacement - straight.displacement)) <= 0.1
    hog = mirrored.hog[:, :, ::-1, swap, :, ::-1]
    if codec == "rawvideo":  # without losses the starting cells are equal to the bit
        assert (hog[..., 0, :] == straight.hog[..., 0, :]).all()
    norms = np.linalg.norm(hog, axis=-1) * np.linalg.norm(straight.hog, axis=-1)
    assert np.median((hog * straight.hog).sum(-1) / norms) > 0.98


@pytest.mark.parametrize(
    ("size", "patches"),
    [((32, 32), (16, 16)), ((322, 242), (20, 16)), ((10, 1000), (16, 20)), ((2, 2), (16, 16))],
)
def test_small_odd_and_extreme_sizes(folder, size, patches):
    path = folder / f"{size}.mp4"
    motion.write_video(path, motion.render(motion.translation(0.5, 0), 9, *size))
    found = extract_video(path, TargetSpec(flow="dis-ultrafast"))
    assert found.valid.shape[1:3] == patches and found.valid.any()
    assert found.frames.shape[1:3] == tuple(16 * side for side in patches)
    assert (found.summary.height, found.summary.width) == size


def test_an_odd_size(folder):
    path = folder / "odd.mp4"
    motion.write_video(path, motion.render(motion.translation(0.5, 0), 9, 321, 243))
    found = extract_video(path, SMALL)
    assert found.frames.shape == (2, 80, 64, 3)


def test_a_video_of_broken_packets_only(pan, folder):
    with av.open(str(pan)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(pan.read_bytes())
    for place, size in places:
        data[place : place + size] = bytes(size)
    (folder / "broken.mp4").write_bytes(data)
    with pytest.raises(VideoError, match="no frame can be decoded: Invalid data"):
        extract_video(folder / "broken.mp4", SMALL)


def test_frames_can_be_left_out(pan):
    for tubelet in stream_tubelets(pan, dataclasses.replace(SMALL, frames="none")):
        assert tubelet.frames == ()


def test_the_frame_rate_is_measured_not_read(folder):
    path = folder / "slow.mp4"
    frames = motion.render(motion.translation(0.5, 0), 12, 32, 48)
    motion.write_video(path, frames, rate=30, pts=range(0, 12 * 1024, 1024))
    spec = dataclasses.replace(SMALL, flow=f"{__name__}:still")
    assert extract_video(path, spec).summary.fps == pytest.approx(15)


def test_an_unknown_flow_and_a_passed_time_limit_are_named(pan):
    with pytest.raises(UsageError, match=r"spec\.flow=raft is unknown"):
        stream_tubelets(pan, dataclasses.replace(SMALL, flow="raft"))
    with pytest.raises(VideoError, match="time limit"):
        list(stream_tubelets(pan, SMALL, deadline_s=0))


def test_a_stream_holds_neither_frames_nor_tubelets(pan):
    """Memory does not grow: what was handed out is not kept."""
    spec = dataclasses.replace(SMALL, flow=f"{__name__}:still", frames="none")
    handed_out = []
    for tubelet in stream_tubelets(pan, spec):
        handed_out.append(weakref.ref(tubelet.position))
        del tubelet
        gc.collect()
        assert sum(ref() is not None for ref in handed_out) <= 1


def test_stored_frames_keep_their_colours(folder):
    path = folder / "red.mp4"
    red = np.zeros((12, 64, 80, 3), np.uint8)
    red[..., 0] = np.linspace(100, 240, 80)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height = 80, 64
        for image in red:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    tubelet = next(iter(stream_tubelets(path, SMALL)))
    stored = decode_frames(tubelet.frames).mean((0, 1, 2))
    assert stored[0] > 140 and stored[1:].max() < 30
    assert extract_video(path, SMALL).frames.mean((0, 1, 2)) == pytest.approx(stored, abs=8)


MOVING = motion.render(motion.translation(1.5, 0), 40, 64, 96, finest=6)


@pytest.mark.parametrize(("first", "second"), [(24, 10), (3, 24)])
def test_the_longest_part_of_one_size_is_kept(folder, first, second):
    parts = [MOVING[:first], MOVING[:second, :48, :64]]
    path = write_parts(folder / "glued.ts", parts)
    alone = write_parts(folder / "alone.ts", [max(parts, key=len)])
    found, expected = extract_video(path, SMALL), extract_video(alone, SMALL)
    assert found.summary.frames == 24 and len(found.valid) == 3
    assert (found.valid == expected.valid).all()
    assert np.abs(found.displacement - expected.displacement)[found.valid].max() < 0.01
    start = 0 if first == 24 else first
    warning = f"only frames {start} … {start + 23} of {first + second} are used"
    assert any(warning in text for text in found.summary.warnings)
    assert found.summary.first_frame == start


def test_a_stream_says_that_a_later_part_is_longer(folder):
    path = write_parts(folder / "later.ts", [MOVING[:9, :48, :64], MOVING[:24]])
    stream = stream_tubelets(path, SMALL)
    with pytest.raises(LaterPartError):
        list(stream)
    assert len(list(stream)) == 3 and stream.summary.height == 64


def test_a_file_of_changing_frame_size_is_too_short(folder):
    parts = [MOVING[:1], MOVING[:1, :48, :64]] * 4
    path = write_parts(folder / "restless.ts", parts)
    with pytest.raises(VideoError, match="too short for one trajectory"):
        extract_video(path, SMALL)


def test_pixels_that_are_not_square_are_made_so(folder):
    wide = write_aspect(folder / "wide.mp4", MOVING[:9, :, ::2], Fraction(2))
    found = extract_video(wide, SMALL)
    assert (found.summary.height, found.summary.width) == (64, 96)
    assert found.summary.warnings == ("pixels of 2:1, made square",)
    assert np.median(found.displacement[found.valid], axis=(0, 1)) == pytest.approx(
        [1.5, 0], abs=0.1
    )
    squeezed = extract_video(wide, dataclasses.replace(SMALL, square_pixels=False))
    assert squeezed.summary.width == 48
    assert squeezed.summary.warnings == ("pixels of 2:1, taken as square",)


@pytest.mark.parametrize(("times", "warns"), [(1, False), (2, True), (3, True)])
def test_frames_stored_more_than_once_are_noted(folder, times, warns):
    path = folder / f"{times}.mp4"
    motion.write_video(path, np.repeat(MOVING, times, axis=0)[:40])
    warnings = extract_video(path, SMALL).summary.warnings
    assert any("frames stored twice" in text for text in warnings) == warns


def test_standstill_is_not_taken_for_repeated_frames(folder):
    still = folder / "standstill.mp4"
    motion.write_video(still, np.concatenate([MOVING[:10], np.repeat(MOVING[10:11], 30, axis=0)]))
    assert extract_video(still, SMALL).summary.warnings == ()
    motion.write_video(still, np.repeat(MOVING[10:11], 30, axis=0))
    assert extract_video(still, SMALL).summary.warnings == ()


@pytest.mark.parametrize(
    ("parameters", "warning"),
    [("tff=1", "interlaced frames: 12"), ("frame-packing=3", "two views in one frame (stereo)")],
)
def test_unusual_frame_contents_give_a_warning(folder, parameters, warning):
    path = folder / "fields.mp4"
    motion.write_video(path, MOVING[:12], options={"x264-params": parameters})
    assert extract_video(path, SMALL).summary.warnings == (warning,)


@pytest.mark.parametrize("offset", [60_000, -1])
def test_glued_recordings_keep_their_frame_rate(folder, offset):
    path = folder / "jump.mkv"
    pts = [512 * n + (512 * 20 * offset if n >= 20 else 0) for n in range(40)]
    motion.write_video(path, MOVING, pts=pts if offset > 0 else range(0, 40 * 512, 512))
    if offset < 0:
        path = write_parts(folder / "again.ts", [MOVING[:20], MOVING[:20]])
    found = extract_video(path, SMALL)
    assert found.summary.fps == pytest.approx(30, rel=0.01)
    assert not found.valid[2].any() and found.valid[[0, 1, 3]].any((1, 2, 3)).all()
