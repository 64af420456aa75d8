"""How a store codes its frames: each by itself, as a JPEG file or as planes packed by LZ4.

`spec.frames` says which. The first bytes of a coded frame say it too, so that a union of stores can
hold both. JPEG is small. LZ4 takes about four times the space, and decodes about three times as
fast (docs/measurements/loader.md).

A frame in LZ4 is: "I420"; its height and width, uint16, little-endian; and a Blosc block of its
planes, uint8 [3 H / 2, W]. Those are OpenCV's I420: Y, then U and V of half the height and width,
BT.601. A value of U or V is that of the mean of its four pixels. An odd height or width is made
even first, by a copy of the last row or column.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import numpy as np

from mme_core.errors import UsageError
from mme_core.packing import blosc
from mme_core.scratch import Scratch
from mme_core.spec import TargetSpec

try:
    import simplejpeg  # comes with the extra `train`
except ImportError:
    simplejpeg = None

_HEAD = struct.Struct("<4sHH")
_MAGIC = b"I420"
_BLOSC_HEAD = struct.Struct("<4x3I")  # bytes of the planes, of one piece of them, of the block
_LZ4_LEVEL = 3  # higher levels save 1 to 4 % and take up to four times as long

_planes = Scratch()

CodedFrame = bytes | np.ndarray  # as an array uint8 [bytes]


def encode_frame(bgr: np.ndarray, spec: TargetSpec) -> bytes:
    """Codes an image, BGR uint8 [H, W, 3], in the way that `spec.frames` names.

    Raises UsageError where `spec` stores no frames.
    """
    if spec.frames == "jpeg":
        quality = [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality]
        return cv2.imencode(".jpg", bgr, quality)[1].tobytes()
    if spec.frames == "lz4":
        return _encode_planes(bgr)
    raise UsageError(f"spec.frames={spec.frames}: no frames are stored")


def decode_frame(coded: CodedFrame, out: np.ndarray | None = None) -> np.ndarray:
    """Decodes a frame to RGB uint8 [H, W, 3].

    out  contiguous uint8 [H, W, 3] to decode into, because fresh memory takes half as much time as
         decoding. Default: fresh memory

    Raises ValueError for bytes that are no coded frame, and for an image of another size than
    `out`.
    """
    if bytes(coded[: len(_MAGIC)]) == _MAGIC:
        return _decode_planes(coded, out)
    return _decode_jpeg(coded, out)


def decode_frames(coded: Sequence[bytes]) -> np.ndarray:
    """Decodes frames of one size to RGB uint8 [len(coded), H, W, 3].

    A frame that is there several times, as one that pads a short video, is decoded once.
    """
    first = decode_frame(coded[0])
    images = np.empty((len(coded), *first.shape), np.uint8)
    images[0] = first
    places = {id(coded[0]): 0}
    for number, frame in enumerate(coded[1:], 1):
        known = places.setdefault(id(frame), number)
        if known < number:
            images[number] = images[known]
        else:
            decode_frame(frame, images[number])
    return images


def _decode_jpeg(jpeg: CodedFrame, out: np.ndarray | None) -> np.ndarray:
    if simplejpeg:
        image = simplejpeg.decode_jpeg(jpeg, buffer=out)
    else:  # the same pixels; takes a sixth longer
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError("not a JPEG image")
    if out is None:
        return image
    _check_size(image.shape[0], image.shape[1], out)
    if not simplejpeg:
        out[:] = image
    return out


def _check_size(height: int, width: int, out: np.ndarray) -> None:
    if out.shape != (height, width, 3) or out.dtype != np.uint8:
        raise ValueError(f"an image of {width}×{height}")


def _encode_planes(bgr: np.ndarray) -> bytes:
    height, width = bgr.shape[:2]
    even = cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    planes = cv2.cvtColor(even, cv2.COLOR_BGR2YUV_I420)
    # OpenCV takes the chroma of one pixel in four. The mean of the four is nearer to each of them.
    rows, columns = even.shape[:2]
    halved = cv2.resize(even, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
    doubled = cv2.resize(halved, (columns, rows), interpolation=cv2.INTER_NEAREST)
    planes[rows:] = cv2.cvtColor(doubled, cv2.COLOR_BGR2YUV_I420)[rows:]
    packed = blosc.compress(planes, b"lz4hc", _LZ4_LEVEL, shuffle=blosc.NOSHUFFLE, typesize=1)
    return _HEAD.pack(_MAGIC, height, width) + bytes(packed)


def _decode_planes(coded: CodedFrame, out: np.ndarray | None) -> np.ndarray:
    if len(coded) < _HEAD.size:
        raise ValueError("it ends too early")
    _, height, width = _HEAD.unpack(bytes(coded[: _HEAD.size]))
    rows, columns = height + height % 2, width + width % 2
    block, size = coded[_HEAD.size :], rows * columns * 3 // 2
    _check_block(block, size)
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    _check_size(height, width, out)
    planes = _planes.of(size).reshape(-1, columns)
    try:
        blosc.decompress(block, planes)
    except RuntimeError as error:
        raise ValueError(f"its block is damaged: {error}") from error
    if (rows, columns) == (height, width):
        cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420, dst=out)
    else:
        out[:] = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)[:height, :width]
    return out


def _check_block(block: CodedFrame, size: int) -> None:
    """Raises ValueError unless a Blosc block declares `size` bytes of planes and its own length.

    Blosc itself trusts what a block declares.
    """
    head = bytes(block[: _BLOSC_HEAD.size])
    planes, _, length = _BLOSC_HEAD.unpack(head) if len(head) == _BLOSC_HEAD.size else (0, 0, 0)
    if (planes, length) != (size, len(block)) or size == 0:
        raise ValueError("its block has another size than it declares")
