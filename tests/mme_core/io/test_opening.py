"""Only media containers are opened as videos. Everything else is refused with a reason."""

import os

import av
import cv2
import numpy as np
import pytest
from motion import render, translation, write_video

from mme_core.errors import UsageError, VideoError
from mme_core.io.opening import check_size
from mme_core.io.video import Video, longest_part

FRAMES = render(translation(1.3, 0.4), 12, 64, 96, finest=4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("opening") / "clip.mp4"
    write_video(path, FRAMES)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "txt"])
def test_files_that_name_other_files_are_refused(clip, suffix):
    lists = {
        "HLS": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile {clip.name}\n",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "DASH": '<?xml version="1.0"?>\n<MPD type="static"></MPD>\n',
    }
    for kind, text in lists.items():
        path = clip.with_name(f"list.{suffix}")
        path.write_text(text)
        with pytest.raises(VideoError, match=rf"names? other|list of other files .*\({kind}\)"):
            Video(path)


def test_lists_behind_urls_are_refused(clip):
    import fsspec

    with fsspec.open("memory://opening/list.mp4", "w") as file:
        file.write(f"#EXTM3U\n#EXTINF:9,\nfile://{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="HLS"):
        Video("memory://opening/list.mp4")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp", "ppm"])
@pytest.mark.parametrize("named", [True, False])
def test_a_still_picture_is_named(tmp_path, suffix, named):
    data = cv2.imencode(f".{suffix}", np.repeat(FRAMES[0][..., None], 3, 2))[1]
    path = tmp_path / (f"cover.{suffix}" if named else "cover.mp4")
    data.tofile(path)
    with pytest.raises(VideoError, match="a still picture"):
        Video(path)


def test_an_animated_webp_has_a_reason(tmp_path):
    head = b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(9) + b"ANIM" + bytes(60)
    (tmp_path / "a.webp").write_bytes(head)
    with pytest.raises(VideoError, match="an animated WebP, which FFmpeg does not decode"):
        Video(tmp_path / "a.webp")


def test_cover_of_a_sound_file_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(FRAMES[0], "gray")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.streams.video  # else this tests nothing
    with pytest.raises(VideoError, match="the cover picture of a sound file"):
        Video(path)


def test_special_files_are_refused_without_waiting(tmp_path):
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    reasons = {
        "loop.mp4": "symbolic links",
        "dangling.mp4": "no such file",
        "pipe.mp4": "a pipe, a socket or a device",
        "x" * 300: "too long",
        "a\0b": "cannot be opened",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason):
            Video(tmp_path / name)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "avi", "mov", "ts", "flv", "gif", "y4m", "mxf"])
def test_ordinary_containers_are_opened(tmp_path, suffix):
    codec = {"webm": "libvpx", "gif": "gif", "y4m": "wrapped_avframe", "mxf": "mpeg2video"}
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec.get(suffix, "libx264"), rate=25)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = {"gif": "rgb8"}.get(suffix, "yuv420p")
        for image in FRAMES:
            picture = av.VideoFrame.from_ndarray(image, "gray")
            container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    assert longest_part(path).count == 12


def test_the_limit_of_a_frame_can_be_set(clip, monkeypatch):
    check_size(4320, 7680)  # 8K
    with pytest.raises(VideoError, match=r"8000×8000 .* set MME_MAX_PIXELS to raise it"):
        check_size(8000, 8000)
    monkeypatch.setenv("MME_MAX_PIXELS", "64000000")
    check_size(8000, 8000)
    monkeypatch.setenv("MME_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="MME_MAX_PIXELS=many"):
        Video(clip)
