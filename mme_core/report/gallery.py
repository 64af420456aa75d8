"""Short films of a store's trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mme_core.report.html import Html, figure
from mme_core.report.pictures import film
from mme_core.report.plots import number
from mme_core.report.survey import Measured
from mme_core.report.words import shorten
from mme_core.spec import TUBELET
from mme_core.store import TargetStore
from mme_core.viz.playback import Tracks, tracks_picture

FILMS = 8
_TUBELETS, _WIDTH = 3, 224  # of a film; pixels
_DENSE = 10  # patches in a row from which on the points of a small picture are dense


def choose_films(measured: Sequence[Measured], most: int = FILMS) -> list[Measured]:
    """Videos from slow to fast, evenly spread over the sorted speeds."""
    ordered = sorted(measured, key=lambda one: one.speed)
    if len(ordered) <= most:
        return ordered
    places = np.linspace(0, len(ordered) - 1, most + 2)[1:-1]
    return [ordered[round(place)] for place in places]


def draw_film(store: TargetStore, one: Measured) -> Html:
    """The tracks of a few tubelets in the middle of a video, on its stored frames."""
    row = store.videos[one.row]
    step = store.spec.clip_step
    start = max((row["count"] - (_TUBELETS - 1) * step - 1) // 2, 0)
    length = min(_TUBELETS, (row["count"] - 1 - start) // step + 1)
    window = store.read(one.row, start, length)
    valid = window.valid.copy()
    if window.wp > _DENSE:
        valid[..., 1:] = False  # one point a patch: all would hide the picture
    tracks = Tracks(window.points, window.displacement, window.hog, valid, store.spec)
    frames = window.frames
    if frames is None:  # not stored: the tracks alone
        side = store.spec.patch
        frames = np.zeros((TUBELET * length, window.hp * side, window.wp * side, 3), np.uint8)
    scale = -(-_WIDTH // (2 * frames.shape[2]))  # half as large as a film is large enough
    pictures = []
    for time in range(0, length * tracks.every, max(store.spec.stride // 2, 1)):
        frame = frames[min(time // store.spec.stride, len(frames) - 1)]
        pictures.append(tracks_picture(tracks, frame, time, tracks.limit, scale))
    caption = f"{shorten(row['id'], 44)} · {number(one.speed)} px a frame, {one.valid:.0%} valid"
    name = f"tracked points of {row['id']}"
    return figure(film(pictures, name, fps=10, width=_WIDTH, quality=40), caption)
