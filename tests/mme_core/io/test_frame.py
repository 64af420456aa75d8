"""Luma and RGB of a decoded frame, upright and with square pixels."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from motion import render, translation
from odd_videos import write_aspect, write_turned

from mme_core.io.video import Video, read_frames

FRAMES = render(translation(1.3, 0.4), 40, 64, 96, finest=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("video")


@pytest.mark.parametrize(
    ("pix_fmt", "range_"),
    [
        ("yuv420p", None),
        ("yuvj420p", None),
        ("yuv444p", None),
        ("yuv420p10le", None),
        ("gray", None),
        ("gray", "MPEG"),
        ("gray10le", "MPEG"),
    ],
)
def test_luma_does_not_depend_on_the_format(folder, pix_fmt, range_):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    path = folder / f"{pix_fmt} {range_}.mkv"
    with av.open(str(path), "w") as container:
        codec = "ffv1" if "gray" in pix_fmt else "libx264"
        stream = container.add_stream(codec, rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        picture = av.VideoFrame.from_ndarray(ramp, "gray")
        if range_ is not None:
            stream.codec_context.color_range = ColorRange[range_]
            limited = np.rint(16 + ramp * (219 / 255)).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(limited, "gray")
            picture.color_range = ColorRange[range_]
        picture = picture.reformat(format=pix_fmt)
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    with Video(path) as opened:
        luma = next(iter(opened)).luma(lambda image: image)
    assert np.abs(luma.astype(int) - ramp).max() <= 1


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), np.rot90(FRAMES[0], -1)),
        ((-1, 0, 0, -1), np.rot90(FRAMES[0], 2)),
        ((0, -1, 1, 0), np.rot90(FRAMES[0])),
        ((-1, 0, 0, 1), FRAMES[0][:, ::-1]),
        ((1, 0, 0, -1), FRAMES[0][::-1]),
        ((0, 1, 1, 0), FRAMES[0].T),
        ((0.999, 0.02, -0.02, 0.999), FRAMES[0]),  # about one degree
        ((0.02, 0.999, -0.999, 0.02), np.rot90(FRAMES[0], -1)),
    ],
)
def test_the_display_matrix_is_applied(folder, matrix, expected):
    path = write_turned(folder / "turned.mp4", FRAMES[:3], matrix)
    with Video(path) as opened:
        frame = next(iter(opened))
        luma, rgb = frame.luma(lambda image: image), frame.rgb()
        assert frame.shape == luma.shape == rgb.shape[:2]
    assert luma.shape == expected.shape and np.abs(luma.astype(int) - expected).mean() < 3
    assert np.abs(rgb[..., 1].astype(int) - luma).mean() < 3


def test_bottom_up_rows_are_turned_upright(folder):
    path = folder / "negative.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("amv", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for image in FRAMES[:3]:
            picture = av.VideoFrame.from_ndarray(image, "gray")
            container.mux(stream.encode(picture.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    with Video(path) as opened:
        for frame, image in zip(opened, FRAMES):
            assert frame.picture.planes[0].line_size < 0  # else this tests nothing
            assert np.abs(frame.luma(lambda x: x).astype(int) - image).mean() < 6
            assert np.abs(frame.rgb()[..., 1].astype(int) - image).mean() < 6


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [("4/3", (64, 128)), ("1/2", (128, 96)), ("64/63", (64, 96)), ("100/1", (64, 96))],
)
def test_non_square_pixels_become_square(folder, aspect, shape):
    path = write_aspect(folder / "aspect.mp4", FRAMES[:3], Fraction(aspect))
    with Video(path) as opened:
        frame = next(iter(opened))
        luma = frame.luma(lambda image: image)
        assert frame.shape == luma.shape == frame.rgb().shape[:2] == shape
    assert read_frames(path, [1]).shape[1:3] == shape
    assert read_frames(path, [1], square_pixels=False).shape[1:3] == (64, 96)
