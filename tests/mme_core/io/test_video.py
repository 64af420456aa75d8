import time
from pathlib import Path

import av
import numpy as np
import pytest
from motion import render, translation, write_video
from odd_videos import write_edited, write_parts

from mme_core.errors import VideoError
from mme_core.io.video import Part, Video, longest_part, read_frames

FRAMES = render(translation(1.3, 0.4), 40, 64, 96, finest=4)
REORDERED = {"crf": "18", "bf": "2", "g": "12"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("video")


@pytest.fixture(scope="module")
def reordered(folder):
    write_video(folder / "reordered.mp4", FRAMES, options=REORDERED)
    return folder / "reordered.mp4"


def decode(path):
    with Video(path) as opened:
        frames = [(f.number, f.pts, f.joined, f.luma(lambda image: image)) for f in opened]
    return opened, *zip(*frames)


def packets(path):
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.pts) for p in container.demux(video=0) if p.size]


def test_frames_come_in_order_with_their_timestamps(reordered):
    opened, numbers, pts, joined, luma = decode(reordered)
    assert numbers == tuple(range(40)) and all(joined)
    assert pts == tuple(range(0, 40 * 512, 512)) and opened.timeline.increasing
    assert np.abs(np.array(luma, int) - FRAMES).mean() < 3


@pytest.mark.parametrize("number", [9, 17, 26])
def test_broken_packet_is_counted_and_leaves_a_gap(reordered, folder, number):
    data = bytearray(reordered.read_bytes())
    place, size, pts = packets(reordered)[number]
    data[place : place + size] = bytes(size)
    path = folder / "broken.mp4"
    path.write_bytes(data)
    opened, _, stamps, joined, _ = decode(path)
    assert opened.broken_packets == 1 and opened.timeline.gaps == 1 and len(stamps) == 39
    after = next(i for i, stamp in enumerate(stamps) if stamp > pts)
    assert [i for i, whole in enumerate(joined) if not whole] == [after]


def test_a_damaged_frame_is_joined_to_neither_neighbour(reordered, folder):
    data = bytearray(reordered.read_bytes())
    place, size, pts = packets(reordered)[12]
    # A decoder always notices this. Other bytes it may take for a picture.
    data[place + size // 2 : place + size] = b"\xff" * (size - size // 2)
    path = folder / "damaged.mp4"
    path.write_bytes(data)
    opened, _, stamps, joined, _ = decode(path)
    assert opened.damaged_frames >= 1
    hit = stamps.index(pts)
    assert not joined[hit] and not joined[hit + 1]


def test_a_lost_key_frame_leaves_gaps(reordered, folder):
    data = bytearray(reordered.read_bytes())
    place, size, _ = packets(reordered)[12]
    data[place : place + size] = bytes(size)
    path = folder / "no key.mp4"
    path.write_bytes(data)
    opened, _, stamps, joined, _ = decode(path)
    steps = np.diff(stamps)
    assert opened.broken_packets == 1 and (steps < 0).any()  # else this tests nothing
    assert not any(whole for whole, step in zip(joined[1:], steps) if step != 512)


def test_packet_missing_from_the_container_leaves_a_gap(reordered, folder):
    path = folder / "lost.mkv"
    with av.open(str(reordered)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number != 20:
                packet.stream = stream
                target.mux(packet)
    opened, _, _, joined, _ = decode(path)
    assert opened.timeline.gaps == 1 and joined.count(False) == 1


def test_a_variable_rate_has_no_gaps(folder):
    steps = np.random.default_rng(0).choice([300, 512, 700, 1024, 2000], 40)
    write_video(folder / "vfr.mp4", FRAMES, pts=np.cumsum(steps).tolist())
    opened, _, stamps, joined, _ = decode(folder / "vfr.mp4")
    assert all(joined) and opened.timeline.increasing and len(set(np.diff(stamps))) > 3


def test_timestamps_that_go_backwards_are_no_gap(folder):
    path = folder / "backwards.avi"
    write_video(path, FRAMES, codec="mpeg4", options={"bf": "2", "g": "12", "qscale": "2"})
    opened, _, stamps, joined, luma = decode(path)
    assert len(stamps) == 40 and all(joined) and not opened.timeline.increasing
    assert np.abs(np.array(luma, int) - FRAMES).mean() < 6


def test_video_stream_need_not_be_the_first(folder):
    path = folder / "audio first.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height = 96, 64
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        for image in FRAMES[:5]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "gray")))
        container.mux(stream.encode())
    assert len(decode(path)[1]) == 5


def silent(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))


def test_unusable_files_have_a_reason(folder, reordered, capfd):
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    (folder / "text.mp4").write_text("Not a video.\n" * 100)
    data = reordered.read_bytes()
    (folder / "half.mp4").write_bytes(data[: data.index(b"moov")])
    silent(folder / "sound.wav")
    reasons = {
        "empty.mp4": "the file is empty",
        "folder.mp4": "folder",
        "text.mp4": "not a video",
        "half.mp4": "moov atom not found: truncated",
        "sound.wav": "no video stream",
        "absent.mp4": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason):
            decode(folder / name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["-dash.mp4", "with space: é 100% 日本.mp4", "a:b.mp4"])
def test_names_may_hold_any_characters(folder, reordered, name):
    (folder / name).write_bytes(reordered.read_bytes())
    assert len(decode(folder / name)[1]) == 40


def test_too_large_frame_is_refused_before_decoding(reordered, monkeypatch):
    monkeypatch.setenv("MME_MAX_PIXELS", str(64 * 96 - 1))
    with pytest.raises(VideoError, match="96×64 is larger"):
        Video(reordered)


def test_the_time_limit(reordered):
    with (
        pytest.raises(VideoError, match="time limit"),
        Video(reordered, time.monotonic()) as opened,
    ):
        list(opened)


WINDOWS = [range(0, 9, 4), range(11, 30, 3), [39], [5, 6, 38]]


@pytest.mark.parametrize("name", ["reordered.mp4", "backwards.avi", "vfr.mp4"])
def test_read_frames_returns_the_frames_of_stage_1(folder, name):
    path = folder / name
    with Video(path) as opened:
        seen = [(frame.pts, frame.rgb()) for frame in opened]
    for window in WINDOWS:
        expected = np.stack([seen[i][1] for i in window])
        pts = np.array([seen[i][0] for i in window])
        assert (read_frames(path, list(window), pts) == expected).all()
        assert (read_frames(path, list(window)) == expected).all()


def test_read_frames_seeks_close_to_the_frames(reordered, monkeypatch):
    with Video(reordered) as opened:
        opened.seek(30 * 512)
        assert next(iter(opened)).pts == 24 * 512  # g=12
    counting = []
    monkeypatch.setattr(Video, "__iter__", lambda self: iter(counting))
    with pytest.raises(VideoError, match="no frame 3"):
        read_frames(reordered, [3])


def test_missing_frames_are_an_error(reordered):
    with pytest.raises(VideoError, match="no frame 40"):
        read_frames(reordered, [38, 40], np.array([38 * 512, 40 * 512]))


@pytest.mark.slow
def test_memory_does_not_grow_with_opens(reordered):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for count in range(2200):
        with Video(reordered) as opened:
            next(iter(opened))
        if count == 200:
            before = resident()
    assert resident() - before < 8e6


@pytest.mark.parametrize(
    ("lengths", "part"), [((9, 5), (0, 9)), ((2, 12), (2, 12)), ((3, 6, 6, 2), (3, 6))]
)
def test_the_longest_part_of_one_size(folder, lengths, part):
    sizes = [(64, 96), (48, 64), (32, 64), (64, 96)]
    frames = [FRAMES[:n, :h, :w] for n, (h, w) in zip(lengths, sizes)]
    path = write_parts(folder / "parts.ts", frames)
    shape = sizes[1 if part[0] else 0]
    assert longest_part(path) == Part(*part, shape)
    found = read_frames(path, [0, part[1] - 1], first=part[0], size=shape)
    expected = frames[1 if part[0] else 0][[0, part[1] - 1]]
    assert np.abs(found[..., 1].astype(int) - expected).mean() < 5


def test_frames_of_two_sizes_are_an_error(folder):
    path = write_parts(folder / "two.ts", [FRAMES[:5], FRAMES[:5, :48, :64]])
    with pytest.raises(VideoError, match="the size of the frames changes"):
        read_frames(path, [3, 7])
    with pytest.raises(VideoError, match="are 96×64 and were 99×99"):
        read_frames(path, [0], size=(99, 99))


def test_a_late_stream_does_not_end_the_video(reordered):
    with Video(reordered) as opened:
        container = opened._container

        class Appearing:
            """PyAV fails to flush a stream that was not there at the start."""

            def demux(self, stream):
                yield from container.demux(stream)
                raise IndexError("list index out of range")

        opened._container = Appearing()
        assert len(list(opened)) == 40
        opened._container = container


def shown(path):
    with Video(path) as opened:
        expected = opened.presented_pts()
    return expected, list(decode(path)[2])


def test_frames_cut_by_an_edit_list_are_not_counted(folder):
    path = write_edited(folder / "edited.mp4", FRAMES, 9)
    expected, seen = shown(path)
    assert expected == seen and len(seen) < 40 <= len(packets(path)) + 9


@pytest.mark.parametrize("name", ["glued.ts", "glued.mkv"])
def test_timestamps_of_glued_recordings_are_not_mixed(folder, name):
    options = {"crf": "18", "bf": "2", "g": "12"}
    path = write_parts(folder / name, [FRAMES[:20], FRAMES[:30]], options)
    expected, seen = shown(path)
    assert expected == seen and len(seen) == 50


def test_hidden_frames_of_vp8_are_not_counted(folder):
    path = folder / "hidden.webm"
    write_video(path, FRAMES, codec="libvpx", options={"b:v": "300k"})
    with av.open(str(path)) as container:
        twentieth = [packet for packet in container.demux(video=0) if packet.size][20]
        place, start = twentieth.pos, bytes(twentieth)[:16]
    data = bytearray(path.read_bytes())
    data[data.index(start, place)] &= ~16
    path.write_bytes(data)
    expected, seen = shown(path)
    assert expected == seen and len(seen) == 39
