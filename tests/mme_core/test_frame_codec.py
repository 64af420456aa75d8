"""Frames come back from their code, and damaged code is refused."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mme_core import frame_codec
from mme_core.errors import UsageError
from mme_core.frame_codec import decode_frame, decode_frames, encode_frame
from mme_core.spec import TargetSpec

JPEG = TargetSpec()
LZ4 = dataclasses.replace(JPEG, frames="lz4")
BOTH = pytest.mark.parametrize("spec", [JPEG, LZ4], ids=["jpeg", "lz4"])


def picture(height, width, seed=0):
    """A smooth BGR image of which the chroma changes slowly, as in a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 6, borderType=cv2.BORDER_REFLECT)


@BOTH
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_an_image_of_any_size_comes_back(spec, height, width):
    image = picture(height, width)
    decoded = decode_frame(encode_frame(image, spec))
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    error = np.abs(decoded[..., ::-1].astype(int) - image)
    assert error.mean() < 4 and error.max() < 24


def test_lz4_keeps_grey_pixels_but_for_a_rounding():
    grey = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 16, 3)).copy()
    apart = np.abs(decode_frame(encode_frame(grey, LZ4)).astype(int) - grey)
    assert apart.max() <= 1


def test_a_small_spot_keeps_its_colour_wherever_it_is():
    """The chroma of four pixels is their mean; each of them alone changes it as much."""
    decoded = []
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        image = np.full((16, 16, 3), 128, np.uint8)
        image[8 + y, 8 + x] = (0, 0, 255)
        decoded.append(decode_frame(encode_frame(image, LZ4)).astype(int))
    spots = [image[8:10, 8:10].mean((0, 1)) for image in decoded]
    np.testing.assert_allclose(spots, [spots[0]] * 4, atol=1)
    red, green, blue = spots[0]
    assert red - green > 15 and red - blue > 15
    assert all((image[:8] == image[0, 0]).all() for image in decoded)


def test_saturated_stripes_keep_their_mean():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, ::2, 2] = image[:, 1::2, 0] = 255
    decoded = decode_frame(encode_frame(image, LZ4))[..., ::-1]
    apart = decoded.mean((0, 1)) - image.mean((0, 1))
    assert np.abs(apart).max() < 40


@pytest.mark.parametrize("size", [(15, 16), (16, 15), (1, 1), (17, 33)])
def test_a_saturated_image_of_odd_size_keeps_its_colour_to_the_edge(size):
    image = np.full((*size, 3), (200, 30, 60), np.uint8)
    apart = np.abs(decode_frame(encode_frame(image, LZ4))[..., ::-1].astype(int) - image)
    assert apart.max() <= 2


@BOTH
def test_frames_do_not_share_memory(spec):
    first = decode_frame(encode_frame(picture(32, 48), spec))
    kept = first.copy()
    decode_frame(encode_frame(picture(32, 48, seed=1), spec))
    np.testing.assert_array_equal(first, kept)


def test_threads_decode_at_the_same_time():
    sizes = [(16 * n, 16 * n) for n in range(1, 9)] * 8
    coded = [encode_frame(picture(*size), LZ4) for size in sizes]
    expected = [decode_frame(frame) for frame in coded]
    with ThreadPoolExecutor(4) as pool:
        for found, image in zip(pool.map(decode_frame, coded), expected):
            np.testing.assert_array_equal(found, image)


@BOTH
def test_a_frame_is_decoded_into_the_memory_that_is_given(spec):
    coded, out = encode_frame(picture(33, 48), spec), np.zeros((33, 48, 3), np.uint8)
    assert decode_frame(coded, out) is out
    np.testing.assert_array_equal(out, decode_frame(np.frombuffer(coded, np.uint8)))
    with pytest.raises(ValueError):
        decode_frame(coded, np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(ValueError):
        decode_frame(coded, np.zeros((33, 48, 3), np.float32))


def test_a_repeated_frame_is_decoded_once(monkeypatch):
    coded, calls = encode_frame(picture(15, 45), LZ4), []
    decode = frame_codec.decode_frame
    monkeypatch.setattr(
        frame_codec, "decode_frame", lambda *given: calls.append(given) or decode(*given)
    )
    other = encode_frame(picture(15, 45, seed=1), LZ4)
    images = decode_frames([coded, other, coded, coded, other])
    assert len(calls) == 2 and images.shape == (5, 15, 45, 3)
    assert (images[[0, 2, 3]] == decode(coded)).all() and (images[[1, 4]] == decode(other)).all()


def test_both_codings_can_stand_side_by_side():
    images = decode_frames([encode_frame(picture(32, 48), spec) for spec in (JPEG, LZ4)])
    assert images.shape == (2, 32, 48, 3)
    assert np.abs(np.diff(images.astype(int), axis=0)).mean() < 4


def test_jpeg_pixels_do_not_depend_on_simplejpeg(monkeypatch):
    pytest.importorskip("simplejpeg")
    coded, out = encode_frame(picture(32, 48), JPEG), np.zeros((32, 48, 3), np.uint8)
    expected = decode_frame(coded)
    monkeypatch.setattr(frame_codec, "simplejpeg", None)
    np.testing.assert_array_equal(decode_frame(coded), expected)
    np.testing.assert_array_equal(decode_frame(coded, out), expected)
    with pytest.raises(ValueError, match="not a JPEG image"):
        decode_frame(coded[:10])


@BOTH
@pytest.mark.parametrize(
    "damage",
    [
        lambda coded: b"",
        lambda coded: coded[:3],
        lambda coded: coded[:7],
        lambda coded: coded[:12],
        lambda coded: coded[:-40],
        lambda coded: coded[:8] + bytes(len(coded) - 8),
        lambda coded: coded[:20] + b"\xff" * (len(coded) - 20),
    ],
)
def test_damaged_code_is_refused(spec, damage):
    coded = damage(encode_frame(picture(32, 48), spec))
    with pytest.raises(ValueError):
        decode_frame(coded, np.zeros((32, 48, 3), np.uint8))


@pytest.mark.parametrize("size", [(0, 0), (20000, 20000), (65535, 65535)])
def test_a_false_size_takes_no_memory(size):
    coded = encode_frame(picture(32, 48), LZ4)
    with pytest.raises(ValueError, match="another size than it declares"):
        decode_frame(coded[:4] + np.array(size, "<u2").tobytes() + coded[8:])


def test_random_damage_raises_no_other_error():
    rng = np.random.default_rng(0)
    coded = encode_frame(picture(64, 64), LZ4)
    refused = 0
    for _ in range(500):
        broken = bytearray(coded)
        for _ in range(3):
            broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            decode_frame(bytes(broken), np.zeros((64, 64, 3), np.uint8))
        except ValueError:
            refused += 1
    assert refused > 100


def test_no_frame_is_coded_where_none_is_stored():
    with pytest.raises(UsageError, match="no frames are stored"):
        encode_frame(picture(16, 16), TargetSpec(frames="none"))
