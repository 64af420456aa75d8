"""Writes what a store holds of a clip into its place in a coded batch (`mme_core.clips.coded`).

Nothing is resized and no target is decoded here: that is left to the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mme_core.cells import array_names
from mme_core.clips.coded import Arrays
from mme_core.clips.draws import Draw
from mme_core.clips.geometry import View
from mme_core.frame_codec import decode_frame
from mme_core.scratch import Scratch
from mme_core.spec import CELLS, TargetSpec
from mme_core.store.pieces import StoredWindow

Row = Mapping[str, Any]  # of a store's table


_CANVAS = Scratch()


def target_names(cells: tuple[str, ...]) -> list[str]:
    """Returns the names of a store's arrays that hold patches; `cells`: descriptors to include."""
    return ["position", "shape", "moments", "valid", *array_names(cells)]


def write_draw(arrays: Arrays, first: int, draw: Draw, row: Row, spec: TargetSpec) -> None:
    """Writes what was drawn for the clips first, first + 1, …; `row`: the video's in the table."""
    for clip, (view, mask) in enumerate(zip(draw.views, draw.masks), first):
        arrays["video"][clip] = draw.video
        arrays["start"][clip] = draw.start
        arrays["label"][clip] = row["label"]
        arrays["flip"][clip] = view.flip
        if "speed" in arrays:
            arrays["speed"][clip] = draw.speed
        for name, values in mask.items():
            arrays[name][clip] = values
        if "view" in arrays:
            arrays["view"][clip] = (view.top, view.left, view.size, row["hp"], row["wp"])
        elif "origin" in arrays:
            arrays["origin"][clip] = (view.left * spec.patch, view.top * spec.patch)


def write_targets(arrays: Arrays, first: int, views: Sequence[View], window: StoredWindow) -> None:
    """Writes the window's targets, cut to each clip's view. Raises StoreError for damage."""
    row, bordered = window.row, "view" in arrays
    cuts = [_cut(view, row["hp"], row["wp"], bordered) for view in views]
    for name in target_names(CELLS):
        if name not in arrays:
            continue
        array, read = arrays[name], 0
        for begin, part in window.parts(name):
            read = begin + len(part)
            for clip, (source, place) in enumerate(cuts, first):
                array[(clip, slice(begin, read), *place)] = part[(slice(None), *source)]
        array[first : first + len(cuts), read:] = 0
    if "homography" in arrays:
        array, read = arrays["homography"], 0
        for begin, part in window.parts("homography"):
            read = begin + len(part)
            array[first : first + len(cuts), begin:read] = part
        array[first : first + len(cuts), read:] = np.eye(3, dtype=np.float32)


Cut = tuple[tuple[slice, slice], tuple[slice, slice]]


def _cut(view: View, hp: int, wp: int, bordered: bool) -> Cut:
    """Returns the rows and columns of the canvas that a clip holds, and their place in the clip."""
    border = 1 if bordered else 0
    source, place = [], []
    for start, length in ((view.top, hp), (view.left, wp)):
        low, high = max(start - border, 0), min(start + view.size + border, length)
        source.append(slice(low, high))
        place.append(slice(low - start + border, high - start + border))
    return (source[0], source[1]), (place[0], place[1])


def write_stored_frames(
    arrays: Arrays,
    first: int,
    views: Sequence[View],
    window: StoredWindow,
    patch: int,
    numbers: np.ndarray,
) -> None:
    """Writes the crops of the window's stored frames. Each frame is decoded once.

    numbers  which stored frames to take (`StoredWindow.frames_at`)
    """
    row = window.row
    height, width = row["hp"] * patch, row["wp"] * patch
    canvas = _CANVAS.of(height * width * 3).reshape(height, width, 3)
    frames, frame = arrays["frames"], -1
    for frame, coded in enumerate(window.frames_at(numbers)):
        decode_stored(coded, canvas, window)
        write_crops(canvas, views, patch, frames, first, frame)
    _repeat(frames, first, len(views), frame)


def decode_stored(coded: np.ndarray, out: np.ndarray, window: StoredWindow) -> None:
    """Decodes a frame of the window into uint8 [H, W, 3]. Raises StoreError for damage."""
    try:
        decode_frame(coded, out)
    except ValueError as error:
        raise window.damage(f"a frame of {window.row['id']}: {error}") from error


def write_file_frames(
    arrays: Arrays, first: int, views: Sequence[View], canvases: Iterable[np.ndarray], patch: int
) -> None:
    """Writes the crops of canvases uint8 [H, W, 3] that were decoded from a video file."""
    frame = -1
    for frame, canvas in enumerate(canvases):
        write_crops(canvas, views, patch, arrays["frames"], first, frame)
    _repeat(arrays["frames"], first, len(views), frame)


def write_crops(
    canvas: np.ndarray,
    views: Sequence[View],
    patch: int,
    frames: np.ndarray,
    first: int,
    frame: int,
) -> None:
    """Writes each view of a canvas, uint8 [H, W, 3], as frame `frame` of its clip in `frames`.

    first  number of the first view's clip
    """
    for clip, view in enumerate(views, first):
        top, left, side = view.top * patch, view.left * patch, view.size * patch
        crop = canvas[top : top + side, left : left + side]
        place = frames[clip, frame, :side, :side]
        if view.flip:
            cv2.flip(crop, 1, dst=place)
        else:
            place[:] = crop


def _repeat(frames: np.ndarray, first: int, clips: int, last: int) -> None:
    """Fills the rest of the clips with frame `last`, the last frame of a short video."""
    for clip in range(first, first + clips):
        frames[clip, last + 1 :] = frames[clip, last]
