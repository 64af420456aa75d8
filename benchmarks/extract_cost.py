"""Cost of stage 1: the whole extraction beside bare decoding and bare flow on the same frames.

    python benchmarks/extract_cost.py [VIDEO ...] [--repeats 3] [spec.stride=4 ...]

Measures processor time on one core, which other work on the machine disturbs least. The bare work
and the extraction run in turn, `--repeats` times, and the fastest of each counts. One more run
with a clock around each part gives the breakdown. Without files it takes three videos of the demo
set, which are smaller than most. The results are in docs/measurements/stage1.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from one_video import processor_seconds, split_words, store_video

from mme_core import targets
from mme_core.extract import tracker
from mme_core.extract import video_targets as extract
from mme_core.extract.flow import flow_function
from mme_core.extract.hog import HogField
from mme_core.io import video
from mme_core.io.opening import open_media, video_stream
from mme_core.spec import TargetSpec
from mme_core.store.writer import ShardWriter

PARTS = ("decode", "resize", "flow", "hog", "tracks", "frames", "quantise", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="VIDEO | spec.FIELD=VALUE")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each measurement; default 3"
    )
    arguments = parser.parse_intermixed_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos, overrides = split_words(arguments.words, folder, demo=3)
        spec = TargetSpec.from_overrides(overrides)
        print(f"milliseconds a raw frame, {spec.flow}; bare decode and flow, the whole extraction")
        head = (f"{name:>8}" for name in ("decode", "flow", "whole"))
        print(f"{'':28}{''.join(head)}{'ratio':>7} |", *(f"{part:>8}" for part in PARTS))
        ratios = [measure(path, spec, arguments.repeats) for path in videos]
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    print(f"geometric mean of the ratios: {mean:.3f}")


def measure(path: Path, spec: TargetSpec, repeats: int) -> float:
    """Prints the video's row; returns whole / (bare decode + bare flow)."""
    pairs, frames = needed_pairs(path, spec)
    works = (
        lambda: bare_decode(path),
        lambda: bare_flow(pairs, spec),
        lambda: whole(path, spec),
    )
    runs = [[processor_seconds(work) for work in works] for _ in range(repeats)]
    decode, flow, extraction = (min(times) for times in zip(*runs))
    ratio = extraction / (decode + flow)
    bare = [f"{1e3 * t / frames:8.2f}" for t in (decode, flow, extraction)]
    parts = breakdown(path, spec)
    print(
        f"{path.name[:27]:28}{''.join(bare)}{ratio:7.3f} |",
        *(f"{1e3 * parts[part] / frames:8.2f}" for part in PARTS),
        flush=True,
    )
    return ratio


def bare_decode(path: Path) -> None:
    with open_media(path) as container:
        for _ in container.decode(video_stream(container)):
            pass


def bare_flow(pairs: list[tuple[np.ndarray, np.ndarray]], spec: TargetSpec) -> None:
    flow = flow_function(spec.flow)
    for first, second in pairs:
        flow(first, second)


def whole(path: Path, spec: TargetSpec) -> None:
    with tempfile.TemporaryDirectory() as store, ShardWriter(store, 0, spec) as writer:
        store_video(writer, path, spec)


def needed_pairs(path: Path, spec: TargetSpec) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """The pairs of luma images between which extraction computes flow; the number of frames."""
    pairs = []

    def record(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        pairs.append((first, second))
        return np.zeros((*first.shape, 2), np.float32)

    with mock.patch.object(extract, "flow_function", lambda *_: record):
        stream = extract.stream_tubelets(path, spec)
        for _ in stream:
            pass
    return pairs, stream.summary.frames


def breakdown(path: Path, spec: TargetSpec) -> dict[str, float]:
    """Seconds in each part of one extraction, measured around the functions of each part."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] += time.process_time() - start

        return call

    def decoding(self: video.Video) -> Iterator[video.Frame]:
        step = clocked("decode", iterate(self).__next__)
        while True:
            try:
                frame = step()
            except StopIteration:
                return
            yield frame

    iterate = video.Video.__iter__
    with ExitStack() as patches:
        patch = lambda *args: patches.enter_context(mock.patch.object(*args))  # noqa: E731
        patch(video.Video, "__iter__", decoding)
        patch(video.Frame, "luma", clocked("resize", video.Frame.luma))
        patch(extract, "flow_function", lambda name, _: clocked("flow", flow_function(name)))
        patch(HogField, "load", clocked("hog", HogField.load))
        patch(HogField, "at", clocked("hog", HogField.at))
        patch(tracker, "sample", clocked("tracks", tracker.sample))
        patch(tracker, "inside", clocked("tracks", tracker.inside))
        patch(video.Frame, "bgr", clocked("frames", video.Frame.bgr))
        patch(extract, "encode_frame", clocked("frames", extract.encode_frame))
        patch(targets, "encode", clocked("quantise", targets.encode))
        patch(ShardWriter, "append", clocked("write", ShardWriter.append))
        patch(ShardWriter, "__exit__", clocked("write", ShardWriter.__exit__))
        whole(path, spec)
    return spent


if __name__ == "__main__":
    main()
