"""Size of a store, and of other codings that were tried.

    python benchmarks/store_size.py [VIDEO ...] [--tried] [spec.stride=4 ...]

Prints megabytes for 8 tubelets, which are a clip of 16 frames. --tried adds other codings of the
large arrays, with the time to decode them. Without VIDEO it generates videos of the demo set. The
results are in docs/measurements/store.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numcodecs import blosc, zstd
from one_video import split_words, store_video

from mme_core.extract.results import TubeletTargets
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store.layout import CHUNK_TUBELETS, layouts
from mme_core.store.writer import ShardWriter
from mme_core.targets import round_moments

CLIP = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="VIDEO | spec.FIELD=VALUE")
    parser.add_argument("--tried", action="store_true", help="also measure other codings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos, overrides = split_words(arguments.words, f"{folder}/demo", demo=6)
        spec = TargetSpec.from_overrides(overrides)
        samples = [measure(video, spec, Path(folder)) for video in videos]
    rows = [sizes for sizes, _ in samples]
    print(f"{'':32}", *(f"{name[:9]:>9}" for name in rows[0]), f"{'targets':>9}{'all':>9}")
    for video, sizes in zip(videos, rows):
        print_row(video.name, sizes)
    print_row("mean", {name: np.mean([row[name] for row in rows]) for name in rows[0]})
    if arguments.tried:
        print_tried([tubelets for _, tubelets in samples], spec)


def print_row(name: str, sizes: dict[str, float]) -> None:
    targets = sum(size for part, size in sizes.items() if not part.startswith("frame"))
    numbers = [*sizes.values(), targets, sum(sizes.values())]
    print(f"{name[:32]:32}", *(f"{number:9.4f}" for number in numbers), sep="")


def measure(
    video: Path, spec: TargetSpec, folder: Path
) -> tuple[dict[str, float], list[TubeletTargets]]:
    """Returns MB of each array per 8 tubelets, from a shard's file sizes, and the tubelets."""
    store = Path(tempfile.mkdtemp(dir=folder))
    kept: list[TubeletTargets] = []
    with ShardWriter(store, 0, spec) as writer:
        store_video(writer, video, spec, also=kept.append)
    place = open_place(store)
    sizes = {
        name: sum(place.files(f"shards/00000.zarr/{name}").values()) / len(kept) * CLIP / 1e6
        for name in layouts(spec)
    }
    return sizes, kept


@dataclass(frozen=True)
class Coding:
    """A coding: its name, and functions to bytes and back."""

    name: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], object]


def codings(name: str) -> Iterator[Coding]:
    for level in (1, 3, 9, 19):
        yield Coding(f"zstd {level}", lambda x, lv=level: zstd.compress(x, lv), zstd.decompress)
    for order in _orders(name):
        yield Coding(
            f"axes {order}, zstd 1",
            lambda x, order=order: zstd.compress(np.ascontiguousarray(x.transpose(order)), 1),
            zstd.decompress,
        )
    for kind, shuffle in (("byte", 1), ("bit", 2)):
        if kind == "bit" or name == "moments":
            order = (3, 0, 1, 2) if name == "moments" else tuple(range(6))
            yield Coding(
                f"axes {order}, {kind} shuffle, zstd 3",
                lambda x, order=order, shuffle=shuffle: blosc.compress(
                    np.ascontiguousarray(x.transpose(order)), b"zstd", 3, shuffle
                ),
                blosc.decompress,
            )
    if name != "moments":
        yield Coding("steps last, differences, zstd 1", _differences, _sums)


def _orders(name: str) -> list[tuple[int, ...]]:
    if name == "moments":
        return [(3, 0, 1, 2)]
    return [(0, 1, 2, 3, 5, 4), (0, 1, 2, 4, 3, 5), (5, 0, 1, 2, 3, 4), (3, 4, 5, 0, 1, 2)]


def _differences(chunk: np.ndarray) -> bytes:
    flat = np.ascontiguousarray(chunk.transpose(0, 1, 2, 3, 5, 4)).ravel()
    return zstd.compress(np.diff(flat, prepend=flat.dtype.type(0)), 1)


def _sums(data: bytes) -> np.ndarray:
    flat = np.cumsum(np.frombuffer(zstd.decompress(data), np.int8), dtype=np.int8)
    return np.ascontiguousarray(flat.reshape(CHUNK_TUBELETS, -1, 6).transpose(0, 2, 1))


def print_tried(samples: list[list[TubeletTargets]], spec: TargetSpec) -> None:
    """Prints MB and decoding time in ms per 8 tubelets for each coding of the exact arrays."""
    for name in ("position", "shape", "moments"):
        layout = layouts(spec)[name]
        sets = {name: lambda tubelet, name=name: getattr(tubelet, name)}
        if name == "moments":
            sets["moments, rounded"] = lambda tubelet: round_moments(tubelet.moments, spec)
        for label, take in sets.items():
            print(f"\n{label:40}{'MB':>9}{'ms':>9}")
            for coding in codings(name):
                results = [try_coding(coding, tubelets, take, layout.row) for tubelets in samples]
                size, milliseconds = np.mean(results, axis=0)
                print(f"{coding.name:40}{size:9.4f}{milliseconds:9.2f}")


def try_coding(
    coding: Coding,
    tubelets: list[TubeletTargets],
    take: Callable[[TubeletTargets], np.ndarray],
    row: tuple[int, ...],
) -> tuple[float, float]:
    size, seconds, chunks = 0, 0.0, 0
    for start in range(0, len(tubelets) - CHUNK_TUBELETS + 1, CHUNK_TUBELETS):
        arrays = [take(tubelet) for tubelet in tubelets[start : start + CHUNK_TUBELETS]]
        chunk = np.zeros((CHUNK_TUBELETS, *row), arrays[0].dtype)
        for place, array in enumerate(arrays):
            chunk[place, : array.shape[0], : array.shape[1]] = array
        data = coding.encode(chunk)
        seconds += min(_seconds(coding, data) for _ in range(5))
        size, chunks = size + len(data), chunks + 1
    per_clip = CLIP / (CHUNK_TUBELETS * max(chunks, 1))
    return size / 1e6 * per_clip, seconds * 1e3 * per_clip


def _seconds(coding: Coding, data: bytes) -> float:
    begun = time.perf_counter()
    coding.decode(data)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
