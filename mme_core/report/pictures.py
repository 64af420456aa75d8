"""Small pictures and films as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from mme_core.report.html import Html, tag


def shrink(image: np.ndarray, width: int) -> np.ndarray:
    """The RGB uint8 picture [H, W, 3], at most `width` pixels wide."""
    height, given = image.shape[:2]
    if given <= width:
        return image
    size = (width, max(round(height * width / given), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def still(image: np.ndarray, alt: str, *, width: int = 320, quality: int = 80) -> Html:
    """An <img> of an RGB uint8 picture, as a WebP file of at most `width` pixels."""
    small = shrink(image, width)
    coded = cv2.imencode(".webp", _bgr(small), [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return _img(coded.tobytes(), alt, small)


def film(
    images: Sequence[np.ndarray], alt: str, *, fps: float, width: int = 224, quality: int = 50
) -> Html:
    """An <img> of RGB uint8 pictures of one size, as a WebP file that repeats for ever."""
    small = [shrink(image, width) for image in images]
    animation = cv2.Animation()
    animation.frames = [_bgr(image) for image in small]
    animation.durations = [max(round(1000 / fps), 20)] * len(small)
    options = [cv2.IMWRITE_WEBP_QUALITY, quality]
    coded = cv2.imencodeanimation(".webp", animation, options)[1]
    return _img(coded.tobytes(), alt, small[0])


def _bgr(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def _img(data: bytes, alt: str, image: np.ndarray) -> Html:
    address = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    height, width = image.shape[:2]
    return tag("img", src=address, alt=alt, width=width, height=height)
