"""Enlarges pictures, labels them, and joins them to rows, columns and grids. All are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mme_core.errors import UsageError

PAPER, INK, GAP = 255, (40, 40, 40), 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarges [H, W, 3] to [scale·H, scale·W, 3] by cubic interpolation; borders stay aligned."""
    if scale < 1:
        raise UsageError(f"scale={scale} must be a whole number of at least 1")
    if scale == 1:
        return image.copy()
    height, width = image.shape[:2]
    return cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)


def readable_scale(height: int, width: int, target: int = 192) -> int:
    """Returns the smallest whole factor that makes the shorter side at least `target` pixels."""
    return -(-target // min(height, width))


def muted(image: np.ndarray, darkness: float = 0.35) -> np.ndarray:
    """Makes a picture darker and nearly grey, so that colours drawn over it stand out."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return ((0.2 * image + 0.8 * grey) * (1 - darkness)).astype(np.uint8)


def text_bar(
    text: str, width: int, size: float = 0.5, align: str = "left", background: int = PAPER
) -> np.ndarray:
    """Draws text in as many lines as needed: [height, width, 3]. align: "left" or "centre"."""
    lines, step = _wrap(text, width - 2 * GAP, size), round(36 * size)
    bar = np.full((step * len(lines) + 2 * GAP, width, 3), background, np.uint8)
    for number, line in enumerate(lines):
        left = GAP
        if align == "centre":
            left = max((width - cv2.getTextSize(line, _FONT, size, 1)[0][0]) // 2, GAP)
        baseline = GAP + step * number + round(step * 0.72)
        cv2.putText(bar, line, (left, baseline), _FONT, size, INK, 1, cv2.LINE_AA)
    return bar


def _wrap(text: str, width: int, size: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if cv2.getTextSize(longer, _FONT, size, 1)[0][0] <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Puts the picture in the upper left of a white sheet [height, width, 3]."""
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    sheet[: image.shape[0], : image.shape[1]] = image
    return sheet


def beside(images: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Joins pictures to a row. Shorter ones are padded below."""
    height = max(image.shape[0] for image in images)
    widths = [image.shape[1] for image in images]
    sheet = np.full((height, sum(widths) + gap * (len(images) - 1), 3), PAPER, np.uint8)
    left = 0
    for image in images:
        sheet[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + gap
    return sheet


def below(images: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Joins pictures to a column. Narrower ones are padded on the right."""
    columns = [image.transpose(1, 0, 2) for image in images]
    return np.ascontiguousarray(beside(columns, gap).transpose(1, 0, 2))


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Joins pictures to a grid with `columns` pictures in a row."""
    rows = [images[first : first + columns] for first in range(0, len(images), columns)]
    return below([beside(row) for row in rows])
