"""How much of a store's targets could be known from the patches that a mask leaves visible?

    python benchmarks/headroom.py [STORE] [--videos 70] [--image-size 112] [--frames 8]

For each floor under the deviation (`norm.floor`) it prints two losses on hidden patches: that of
the best constant vector, and that of copying. Copying takes the mean of the true trajectories
(and HOGs) of the nearest visible patches, normalised by themselves and shrunk by the factor that
suits all patches best. A model sees frames and no true trajectories. If its loss is near the
constant's while copying is far below, the model has not learnt to see motion, although there is
something to learn. Without a store it makes one of the demo set.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile

import numpy as np

from mme_core.errors import MMEError
from mme_core.masking import tube_mask
from mme_core.spec import TUBELET
from mme_core.store import TargetStore
from mme_core.store.window import Window
from preprocess import flows

FLOORS = (0.0, 0.1, 0.25, 0.5, 1.0)  # pixels
SPEEDS = (0, 0.05, 0.2, 0.5, 1, np.inf)  # mean |Δp| of a patch, pixels a raw frame
SPEC = ("spec.stride=2", "spec.short_side=128", "spec.long_side=160")
SHOWN = 0.1  # the floor for which the table is split by speed
RATIO = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", nargs="?", help="path or fsspec URL")
    parser.add_argument("--videos", type=int, default=70)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(TargetStore(options.store or make_store(folder)), options)


def make_store(folder: str) -> str:
    demo = ["--dataset", "demo", "--demo-videos", "20", "--root", f"{folder}/videos", "--serial"]
    assert flows.main([*demo, "--store", f"{folder}/store", *SPEC]) == 0
    return f"{folder}/store"


def measure(store: TargetStore, options: argparse.Namespace) -> None:
    side = options.image_size // store.spec.patch
    windows = [
        middle_crop(store.read(int(video), 0, options.frames // TUBELET), side)
        for video in np.linspace(0, len(store.videos) - 1, options.videos).astype(int)
    ]
    rng = np.random.default_rng(0)
    masks = [tube_mask((options.frames // TUBELET, side, side), RATIO, rng)[0] for _ in windows]

    raw = pairs(windows, masks, "displacement")
    valid = pairs(windows, masks, "valid")[0][..., None, None]  # [M, n, K, 1, 1]
    speed = np.linalg.norm(raw[0], axis=-1).mean((1, 2, 3))
    print(
        f"{len(windows)} clips, {len(speed)} hidden tubes, median speed {np.median(speed):.2f} px"
    )
    for floor in FLOORS:
        target, copied = (standardise(part, floor) for part in raw)
        report(f"position, floor {floor} px", target, copied, valid)
        if floor != SHOWN:
            continue
        for low, high in itertools.pairwise(SPEEDS):
            chosen = (speed >= low) & (speed < high)
            if chosen.any():
                name = f"  {low}–{high} px ({chosen.mean():.0%})"
                report(name, *(part[chosen] for part in (target, copied, valid)))
    report("shape", *(standardise(part, 0.0) for part in pairs(windows, masks, "hog")), valid)


def middle_crop(window: Window, side: int) -> Window:
    height, width = window.displacement.shape[1:3]
    if min(height, width) < side:
        raise MMEError(f"--image-size: the canvas has {height} × {width} patches, {side} are asked")
    return window.crop((height - side) // 2, (width - side) // 2, side, side)


def pairs(windows: list[Window], masks: list[np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    """(of the hidden tubes, of their nearest visible ones), each [M, n, K, …]."""
    hidden, copied = [], []
    for window, mask_hw in zip(windows, masks):
        values = getattr(window, name)
        visible = np.argwhere(~mask_hw)
        for place in np.argwhere(mask_hw):
            distance = np.abs(visible - place).sum(1)
            rows, columns = visible[distance == distance.min()].T
            hidden.append(values[:, place[0], place[1]])
            copied.append(values[:, rows, columns].mean(1))
    return np.stack(hidden), np.stack(copied)


def standardise(values: np.ndarray, floor: float) -> np.ndarray:
    """The `patch` normalisation over [K, L, ·] of a tubelet."""
    axes = (2, 3, 4)
    deviation = np.maximum(values.std(axes, keepdims=True), max(floor, 1e-6))
    return (values - values.mean(axes, keepdims=True)) / deviation


def report(name: str, target: np.ndarray, copied: np.ndarray, valid: np.ndarray) -> None:
    weight = np.broadcast_to(valid, target.shape).astype(float)
    total = weight.sum()
    mean_t, mean_c = ((x * weight).sum((0, 1)) / weight.sum((0, 1)) for x in (target, copied))
    t, c = target - mean_t, copied - mean_c
    factor = (t * c * weight).sum() / (c * c * weight).sum()
    constant, loss = (((x**2) * weight).sum() / total for x in (t, t - factor * c))
    print(
        f"{name:<24} constant {constant:.3f}  copying {loss:.3f}  below {1 - loss / constant:.0%}"
    )


if __name__ == "__main__":
    main()
