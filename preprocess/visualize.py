"""Draws the trajectories, the flow and the HOG of a stored video.

    mme visualize STORE --video ID -o out.mp4

Colours show directions, as in the legend. Grey cells and points without a dot have no valid
trajectory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mme_core.canvas import plan_canvas
from mme_core.datasets.paths import any_path
from mme_core.errors import StoreError, UsageError
from mme_core.io.containers import INSIDE, is_inside
from mme_core.io.place import open_place
from mme_core.io.remote import is_url, join
from mme_core.io.video import read_frames
from mme_core.parser import CommandParser, disk_path
from mme_core.progress import follow
from mme_core.spec import TUBELET
from mme_core.store import TargetStore
from mme_core.store.layout import LEDGER
from mme_core.terminal import plain
from mme_core.viz.colour import wheel
from mme_core.viz.film import write_film, write_png
from mme_core.viz.grids import below, beside, grid, readable_scale, text_bar
from mme_core.viz.playback import LAYERS, Tracks
from preprocess.ledger import read_row

_LEGEND = 56  # side of the colour wheel, pixels
_LARGEST_SIDE = 8192  # of an enlarged frame, pixels; a sheet shows several


@dataclass(frozen=True)
class Clip:
    """A window of one video and the frames to draw on.

    name    id of the video
    frames  uint8 [m, H, W, 3]
    times   for each frame its number in the video, counted from `first`
    first   number of the window's first frame in the video
    fps     frames a second of the film
    """

    name: str
    tracks: Tracks
    frames: np.ndarray
    times: tuple[int, ...]
    first: int
    fps: float


def parse(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser("visualize", __doc__)
    add = parser.add_argument
    add("store", metavar="STORE", help="folder or URL of the store")
    add("--video", metavar="ID", help="id of the video (default: the first video)")
    output_help = "file to write: .mp4 or .gif for a film, .png for a sheet of pictures"
    add("-o", "--output", metavar="FILE", type=disk_path, required=True, help=output_help)
    add("--start", metavar="N", type=int, default=0, help="first tubelet")
    add("--tubelets", metavar="N", type=int, default=8, help="number of tubelets")
    layer_help = f"what to draw: {', '.join(LAYERS)} or all"
    add("--layer", choices=[*LAYERS, "all"], default="all", metavar="NAME", help=layer_help)
    scale_help = "enlargement factor (default: large enough to be readable)"
    add("--scale", metavar="N", type=int, help=scale_help)
    source_help = "frames to draw on: auto (the video file if it exists), video or store"
    sources = ["auto", "video", "store"]
    add("--source", choices=sources, metavar="NAME", default="auto", help=source_help)
    root_help = "folder or URL of the video files (default: where stage 1 read them)"
    add("--root", metavar="DIR", help=root_help)
    fps_help = "frames a second of the film (default: the speed of the video)"
    add("--fps", metavar="F", type=float, help=fps_help)
    return parser.parse_args(_joined(argv))


def _joined(argv: list[str]) -> list[str]:
    """Joins `--video ID` to one word. Else argparse takes an ID such as `-a` for an option."""
    words = list(argv)
    if "--video" in words[:-1]:
        place = words.index("--video")
        words[place : place + 2] = [f"--video={words[place + 1]}"]
    return words


def main(argv: list[str]) -> int:
    """Writes the picture or film; returns 0. Raises UsageError, StoreError or VideoError."""
    args = parse(argv)
    if args.output.suffix.lower() not in (".mp4", ".gif", ".png"):
        raise UsageError(f"--output {args.output}: the ending must be .mp4, .gif or .png")
    if args.tubelets < 1 or args.start < 0:
        raise UsageError("--tubelets must be at least 1 and --start at least 0")
    if args.scale is not None and args.scale < 1:
        raise UsageError("--scale must be at least 1")
    if args.fps is not None and not 0.01 <= args.fps <= 1000:
        raise UsageError(f"--fps {args.fps:g} must be in 0.01 … 1000")
    store = TargetStore(args.store)
    clip = load_clip(store, args.video, args.start, args.tubelets, args.source, args.root)
    layers = list(LAYERS) if args.layer == "all" else [args.layer]
    height, width = clip.frames.shape[1:3]
    largest = max(_LARGEST_SIDE // max(height, width), 1)
    if args.scale is not None and args.scale > largest:
        raise UsageError(
            f"--scale {args.scale} must be at most {largest} for pictures of {width}×{height}"
        )
    scale = args.scale or readable_scale(height, width, 256 if len(layers) > 1 else 384)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.open("ab").close()  # this error names the file; FFmpeg's error does not
    if args.output.suffix.lower() == ".png":
        write_png(args.output, contact_sheet(clip, layers, scale))
        count = 1
    else:
        pictures = follow(film(clip, layers, scale), len(clip.times), "pictures")
        count = write_film(args.output, pictures, args.fps or clip.fps)
    print(plain(f"{args.output}: {count} picture{'s' * (count > 1)} of {clip.name}"))
    return 0


def load_clip(
    store: TargetStore,
    video: str | None,
    start: int,
    tubelets: int,
    source: str,
    root: str | None,
) -> Clip:
    """Reads a window of the store and the frames to draw on."""
    index = 0 if video is None else store.videos.find(video)
    row = store.videos[index]
    last = int(row["count"]) - 1
    if start > last:
        raise UsageError(f"--start {start}: the tubelets of {row['id']} are 0 … {last}")
    step, hop = store.spec.clip_step, store.spec.hop
    assert hop is not None  # the specification sets its default
    window = store.read(index, start, min(tubelets, (last - start) // step + 1))
    tracks = Tracks(window.points, window.displacement, window.hog, window.valid, store.spec)
    first, fps = start * hop, float(row["fps"]) or 25.0
    path = locate(row, root, store.url)
    if _reads_file(source, path, window.frames is not None, store.url):
        count = min(len(window.valid) * tracks.every, int(row["frames"]) - first)
        images = read_frames(
            path,
            range(first, first + count),
            first=row["first_frame"],
            size=(int(row["height"]), int(row["width"])),
            square_pixels=store.spec.square_pixels,
        )
        height, width = images.shape[1:3]
        canvas = plan_canvas(height, width, store.spec)
        frames = np.stack([canvas.crop(canvas.resize(image)) for image in images])
        return Clip(str(row["id"]), tracks, frames, tuple(range(count)), first, fps)
    assert window.frames is not None  # `_reads_file` made sure of it
    times = [
        tubelet * tracks.every + frame * store.spec.stride
        for tubelet in range(len(window.valid))
        for frame in range(TUBELET)
    ]
    slow = fps / store.spec.stride
    return Clip(str(row["id"]), tracks, window.frames, tuple(times), first, slow)


def locate(row: dict[str, Any], root: str | None, url: str) -> str:
    """The path of the video file: below `root`, or without a root the path in the ledger."""
    if root is not None or is_url(row["path"]) or Path(row["path"]).is_absolute():
        return join(root or "", row["path"])
    place = open_place(url)
    if place.exists(LEDGER):
        wanted = json.dumps(row["id"]).encode()
        for line in place.read(LEDGER).splitlines():
            if wanted in line:  # only such lines are worth the time to read them
                with contextlib.suppress(ValueError):  # a damaged line
                    entry = read_row(line)
                    if entry.id == row["id"]:
                        return entry.path
    return row["path"]


def _reads_file(source: str, path: str, kept: bool, url: str) -> bool:
    """Whether to draw on the video file. Raises StoreError if the chosen frames do not exist."""
    there = any_path(path.partition(INSIDE)[0] if is_inside(path) else path).exists()
    if source == "store" and not kept:
        raise StoreError(f"{url} keeps no frames (spec.frames=none): use --source video")
    if source == "store" or (source == "auto" and kept and not there):
        return False
    if not there:
        without = " or use --source store" if kept else f"; {url} keeps no frames"
        raise StoreError(f"{path} is not there: name the videos' folder with --root{without}")
    return True


def film(clip: Clip, layers: list[str], scale: int) -> Iterator[np.ndarray]:
    """Yields a picture for each frame: the layers side by side (four: two by two) and a legend."""
    limit = clip.tracks.limit
    for frame, time in zip(clip.frames, clip.times):
        pictures = [LAYERS[name](clip.tracks, frame, time, limit, scale) for name in layers]
        body = grid(pictures, 2 if len(pictures) == 4 else len(pictures))
        text = f"{clip.name} · raw frame {clip.first + time}{_named(layers)}"
        yield with_legend(body, text, limit)


def contact_sheet(clip: Clip, layers: list[str], scale: int) -> np.ndarray:
    """One picture of all tubelets, each at its second frame.

    Several layers: one row for each layer. One layer: rows of four tubelets.
    """
    limit, stride = clip.tracks.limit, clip.tracks.spec.stride
    shown = [
        (frame, time)
        for frame, time in zip(clip.frames, clip.times)
        if time % clip.tracks.every == stride
    ]
    rows = [
        [LAYERS[name](clip.tracks, frame, time, limit, scale) for frame, time in shown]
        for name in layers
    ]
    body = grid(rows[0], 4) if len(rows) == 1 else below([beside(row) for row in rows])
    frames = ", ".join(str(clip.first + time) for _, time in shown)
    return with_legend(body, f"{clip.name} · raw frames {frames}{_named(layers)}", limit)


def _named(layers: list[str]) -> str:
    """The names of several layers, for the caption."""
    return f" · {', '.join(layers)}" if len(layers) > 1 else ""


def with_legend(body: np.ndarray, text: str, limit: float) -> np.ndarray:
    """The picture above its legend: caption, colour wheel, and the speed of a full colour."""
    note = f"{text} · full colour: {limit:.1f} px a raw frame and more"
    bar = text_bar(note, max(body.shape[1] - _LEGEND - 8, 160))
    return below([body, beside([wheel(_LEGEND), bar], gap=8)])
