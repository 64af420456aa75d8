"""The definitions of the targets, written out for one point and without the project's code.

They are slow and plain: a check of the fast code against the docstrings of `mme_core.extract`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np


def read_luma(path: Path) -> list[np.ndarray]:
    """The Y planes of a video of limited range, stretched to 0 … 255: uint8 [H, W] each."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            image = rows[: frame.height, : frame.width].astype(float)
            frames.append(np.clip(np.rint((image - 16) * 255 / 219), 0, 255).astype(np.uint8))
    return frames


def flow_between(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Flow `dis-ultrafast` from each frame to the next, float32 [H, W, 2]."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # with several threads the flow would depend on the machine
    algorithm = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flows = [algorithm.calc(one, two, None) for one, two in pairwise(frames)]
    cv2.setNumThreads(threads)
    return flows


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The image [H, W, C] at (x, y); outside of it its nearest border pixel."""
    height, width = image.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    right, down = x - left, y - top
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def gradient_votes(luma: np.ndarray) -> np.ndarray:
    """Each pixel's gradient magnitude, shared by two of nine orientations: float [H, W, 9]."""
    image = np.pad(luma / 255, 1, mode="edge")
    gx = image[1:-1, 2:] - image[1:-1, :-2]
    gy = image[2:, 1:-1] - image[:-2, 1:-1]
    angle = np.degrees(np.arctan2(gy, gx)) % 180
    votes = []
    for centre in range(10, 180, 20):
        distance = np.abs(angle - centre)
        distance = np.minimum(distance, 180 - distance)
        votes.append(np.hypot(gx, gy) * np.clip(1 - distance / 20, 0, None))
    return np.stack(votes, axis=-1)


def hog_around(votes: np.ndarray, x: float, y: float, side: int = 8) -> np.ndarray:
    """The sum of the votes in the window of `side` pixels around (x, y): float [9].

    A pixel at the window's border counts by the part of it that the window covers.
    """
    height, width = votes.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    rows, columns = (
        np.clip(
            np.minimum(np.arange(size) + 0.5, place + side / 2)
            - np.maximum(np.arange(size) - 0.5, place - side / 2),
            0,
            None,
        )
        for size, place in ((height, y), (width, x))
    )
    return np.einsum("h,w,hwb->b", rows, columns, votes)


def follow(
    flows: list[np.ndarray], votes: list[np.ndarray], raw: int, steps: int, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follows a point (x, y) from raw frame `raw`, at most to the last frame; m steps are taken.

    Returns its displacements [m, 2], the places that they lead to [m, 2], and HOG before each step
    [m, 9].
    """
    moves, places, hog, place = [], [], [], start
    for number in range(raw, min(raw + steps, len(flows))):
        hog.append(hog_around(votes[number], *place))
        moves.append(bilinear(flows[number], *place))
        place = place + moves[-1]
        places.append(place)
    return np.array(moves), np.array(places), np.array(hog)
