"""Reads a window of a store with zarr and numpy alone. docs/plug-in.md explains it."""

import json
from pathlib import Path

import numpy as np
import zarr


def read_window(store: str, video: str, start: int, tubelets: int) -> tuple[np.ndarray, ...]:
    """displacement [n, Hp, Wp, K, L, 2], hog [n, Hp, Wp, K, L, B] and valid [n, Hp, Wp, K]."""
    spec = json.loads(Path(store, "store.json").read_text())["spec"]
    shards = [zarr.open_group(path, mode="r") for path in Path(store, "shards").glob("*.zarr")]
    tables = [(shard, row) for shard in shards for row in shard.attrs["videos"]]
    shard, row = next((shard, row) for shard, row in tables if row["id"] == video)
    step = 2 * spec["stride"] // spec["hop"]  # 1, unless the stored tubelets overlap
    rows = slice(row["first"] + start, row["first"] + row["count"], step)
    names = ("position", "shape", "moments", "valid")
    cut = {name: shard[name][rows][:tubelets, : row["hp"], : row["wp"]] for name in names}
    mean_xy, sd_xy, mean_hog, sd_hog = np.split(cut["moments"][..., None, None, :], [2, 4, 5], -1)
    steps = spec["points"] * spec["length"]
    displacement = cut["position"] / (127 / np.sqrt(steps - 1)) * (sd_xy + 1e-6) + mean_xy
    hog = cut["shape"] / (127 / np.sqrt(steps * spec["hog_bins"] - 1)) * (sd_hog + 1e-6) + mean_hog
    return displacement, hog, (cut["valid"][..., None] >> np.arange(spec["points"])) & 1 == 1
