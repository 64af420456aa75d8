"""Measures a sample of a store's videos: motion, validity, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from mme_core.errors import StoreError
from mme_core.frame_codec import decode_frame
from mme_core.store import TargetStore
from mme_core.store.layout import CHUNK_TUBELETS
from mme_core.store.window import CodedWindow
from mme_core.targets import decode_displacement, unpack_valid

WINDOWS = 3  # measured parts of a video: near its start, in the middle, near its end
STILL = 0.1  # px a raw frame; slower patches do not move
_THUMBNAIL = 16  # side, pixels
_BLACK = 24  # luma of a black bar's brightest pixels


@dataclass(frozen=True)
class Measured:
    """What a sample of a video's targets says.

    row        of the video in the store's table
    speed      root mean square of the displacements of valid patches, canvas px a raw frame
    moving     share of the valid patches that move faster than STILL
    valid      share of the trajectories that are valid
    shake      median change of the whole picture's motion from one raw frame to the next, px
    letterbox  does the picture have black bars on two opposite sides?
    looks      float32 [·]: thumbnails of frames, each with mean 0 and length 1; None: no frames
    motion     float32 [·]: mean displacements on a coarse grid
    """

    row: int
    speed: float
    moving: float
    valid: float
    shake: float
    letterbox: bool
    looks: np.ndarray | None
    motion: np.ndarray


def choose(videos: int, most: int) -> list[int]:
    """Rows of at most `most` videos, evenly spread over the table."""
    if videos <= most:
        return list(range(videos))
    return np.linspace(0, videos - 1, most).round().astype(int).tolist()


def survey(store: TargetStore, rows: list[int], threads: int = 4) -> Iterator[Measured]:
    """Measures these videos, in their order. Raises StoreError where a chunk is damaged."""
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda row: measure(store, row), rows)


def measure(store: TargetStore, row: int) -> Measured:
    """Measures a few windows of a video. Raises StoreError where a chunk is damaged."""
    windows = [store.read_coded(row, *part) for part in _parts(store, row)]
    speeds, valids, shakes = [], [], []
    for window in windows:
        known = unpack_valid(window.valid, store.spec.points)
        valids.append(known.mean())
        some = np.any(known, axis=-1)
        speeds.append(np.sqrt(np.square(window.moments[..., :4]).sum(-1))[some])
        shakes += _changes(window, some)
    speed = np.concatenate(speeds)
    frames = [_grey(window.frames[0]) for window in windows if window.frames]
    middle = windows[len(windows) // 2].moments[..., :2].mean(0)
    return Measured(
        row=row,
        speed=float(np.sqrt(np.square(speed).mean())) if speed.size else 0.0,
        moving=float((speed > STILL).mean()) if speed.size else 0.0,
        valid=float(np.mean(valids)),
        shake=float(np.median(shakes)) if shakes else 0.0,
        letterbox=bool(frames) and has_bars(np.stack(frames)),
        looks=np.concatenate([_thumbnail(image) for image in frames]) if frames else None,
        motion=cv2.resize(middle, (4, 4), interpolation=cv2.INTER_AREA).ravel(),
    )


def _parts(store: TargetStore, row: int) -> list[tuple[int, int]]:
    """(start, tubelets) of the measured windows; a short video is measured whole."""
    count, step = int(store.videos["count"][row]), store.spec.clip_step
    span = (CHUNK_TUBELETS - 1) * step + 1
    if count <= WINDOWS * span:
        return [(0, (count - 1) // step + 1)]
    return [(int(start), CHUNK_TUBELETS) for start in np.linspace(0, count - span, WINDOWS)]


def _changes(window: CodedWindow, some: np.ndarray) -> list[float]:
    """Changes of the whole picture's motion from each step to the next, pixels.

    some  bool [n, Hp, Wp]: patches with a valid trajectory
    The whole picture's motion is the median over the patches.
    """
    moves = decode_displacement(window.position, window.moments, window.spec)
    found: list[float] = []
    for tubelet, known in zip(moves, some):
        if known.any():
            whole_L2 = np.median(tubelet[known].mean(1), axis=0)
            found += np.linalg.norm(np.diff(whole_L2, axis=0), axis=-1).tolist()
    return found


def _grey(coded: bytes) -> np.ndarray:
    """Luma at half the size. Raises StoreError for bytes that are no frame."""
    try:
        image = cv2.cvtColor(decode_frame(coded), cv2.COLOR_RGB2GRAY)
    except ValueError as error:
        raise StoreError(
            f"a stored frame is damaged ({error}); `mme verify --deep` says which"
        ) from error
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def has_bars(frames: np.ndarray) -> bool:
    """Whether the frames, luma uint8 [N, H, W], have black bars on opposite sides.

    Each bar covers at least 4 % of the side in every frame, both are about as wide, and together
    they cover less than half.
    """
    brightest = frames.max(0)
    for image in (brightest, brightest.T):
        lines = np.quantile(image, 0.98, axis=1) < _BLACK
        if lines.all():
            return False
        first, last = int(np.argmin(lines)), int(np.argmin(lines[::-1]))
        room = abs(first - last) <= 0.05 * len(lines) and first + last < 0.5 * len(lines)
        if room and min(first, last) >= 0.04 * len(lines):
            return True
    return False


def _thumbnail(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    centred = small.ravel().astype(np.float32) - small.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > _THUMBNAIL * 4 else np.zeros_like(centred)


def alike(measured: list[Measured], frames: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows whose videos look and move alike, and are as long, up to 5 %.

    frames  number of frames of each video of the store's table
    Without stored frames, only their motion is compared, and must agree exactly.
    """
    pairs = []
    for i, one in enumerate(measured):
        for other in measured[i + 1 :]:
            long = sorted((int(frames[one.row]), int(frames[other.row])))
            if long[1] <= 1.05 * long[0] and _same(one, other):
                pairs.append((one.row, other.row))
    return pairs


def _same(one: Measured, other: Measured) -> bool:
    if one.looks is None or other.looks is None:
        return bool(one.moving > 0 and np.array_equal(one.motion, other.motion))
    if len(one.looks) != len(other.looks):
        return False
    windows = len(one.looks) / _THUMBNAIL**2
    if float(one.looks @ other.looks) < 0.98 * windows:
        return False
    difference = float(np.abs(one.motion - other.motion).max())
    return difference <= 0.1 + 0.1 * float(np.abs(one.motion).max())
