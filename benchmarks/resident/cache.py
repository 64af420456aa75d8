"""A store's frames and targets as plain arrays beside it, decoded once for all runs on a GPU.

    python benchmarks/resident/cache.py STORE … [--processes 16]

STORE/decoded/ then holds frames.npy uint8 [F, H, W, 3] and the targets as .npy files with a row
for each tubelet. A video of c tubelets has c + 1 frames: the first of each tubelet and the second
of the last. The store must have been made with spec.hop = spec.stride. Videos with a smaller canvas
than the store's largest are padded with zeros.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from mme_core.store import TargetStore
from mme_core.store.window import decode_jpeg

FOLDER = "decoded"
TARGETS = ("position", "shape", "moments", "valid")


def first_rows(store: TargetStore) -> np.ndarray:
    """Row of the first tubelet of each video in the arrays, then the number of rows, int64."""
    return np.cumsum([0, *store.videos["count"]])


def decode_store(url: str, processes: int) -> None:
    """Writes the arrays of a store, unless they are there."""
    store, folder = TargetStore(url), Path(url) / FOLDER
    if (folder / "done").exists():
        return
    if store.spec.hop != store.spec.stride:
        raise SystemExit(f"{url}: make it with spec.hop=spec.stride")
    folder.mkdir(exist_ok=True)
    table, rows = store.videos, int(first_rows(store)[-1])
    grid = (int(table["hp"].max()), int(table["wp"].max()))
    window = store.read_coded(0, 0, 1)
    shapes = {name: (rows, *grid, *getattr(window, name).shape[3:]) for name in TARGETS}
    patch = store.spec.patch
    shapes["frames"] = (rows + len(table), grid[0] * patch, grid[1] * patch, 3)
    for name, shape in shapes.items():
        dtype = np.uint8 if name == "frames" else getattr(window, name).dtype
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    parts = np.array_split(np.arange(len(table)), min(4 * processes, len(table)))
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(partial(_decode_videos, url), parts))
    (folder / "done").touch()


def _decode_videos(url: str, videos: np.ndarray) -> None:
    store, folder = TargetStore(url), Path(url) / FOLDER
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in (*TARGETS, "frames")
    }
    first, step = first_rows(store), store.spec.clip_step
    for video in videos.tolist():
        row, low = store.videos[video], int(first[video])
        for offset in range(min(step, row["count"])):
            rows = range(low + offset, low + row["count"], step)
            window = store.read_coded(video, offset, len(rows))
            for name in TARGETS:
                part = getattr(window, name)
                arrays[name][rows.start : rows.stop : step, : row["hp"], : row["wp"]] = part
            for number, place in enumerate(rows):
                _put(arrays["frames"][place + video], window.frames[2 * number])
                if place == low + row["count"] - 1:
                    _put(arrays["frames"][place + video + 1], window.frames[2 * number + 1])


def _put(place: np.ndarray, jpeg: bytes) -> None:
    image = decode_jpeg(jpeg)
    place[: image.shape[0], : image.shape[1]] = image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--processes", type=int, default=16)
    options = parser.parse_args()
    for url in options.stores:
        decode_store(url, options.processes)


if __name__ == "__main__":
    main()
