"""Frames come back from their code, and damaged code is refused."""

import dataclasses

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


def test_lz4_keeps_what_the_planes_hold():
    """Nothing is lost but the resolution of the chroma and a rounding."""
    image = picture(64, 80)
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    expected = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)
    np.testing.assert_array_equal(decode_frame(encode_frame(image, LZ4)), expected)
    grey = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 16, 3)).copy()
    apart = np.abs(decode_frame(encode_frame(grey, LZ4)).astype(int) - grey)
    assert apart.max() <= 1


@BOTH
def test_a_frame_is_decoded_into_the_memory_that_is_given(spec):
    coded, out = encode_frame(picture(33, 48), spec), np.zeros((33, 48, 3), np.uint8)
    assert decode_frame(coded, out) is out
    np.testing.assert_array_equal(out, decode_frame(np.frombuffer(coded, np.uint8)))
    with pytest.raises(ValueError):
        decode_frame(coded, np.zeros((32, 48, 3), np.uint8))


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
