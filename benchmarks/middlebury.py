"""Error and cost of every flow algorithm on the Middlebury training set.

    python benchmarks/middlebury.py DIR [--flow NAME ...]

DIR holds `other-data/SCENE/frame10.png`, `frame11.png` and `other-gt-flow/SCENE/flow10.flo`
(https://vision.middlebury.edu/flow/data/). Prints means over the scenes, at the images' own
resolution (584×388 to 640×480):

    error    end-point error over all pixels with ground truth, pixels
    track    error of one step of the grid's points, read bilinearly as in stage 1; median and
             90th percentile over the points of all scenes, pixels
    ms       processor time of a pair on one thread

The results are in docs/measurements/stage1.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from mme_core.canvas import grid_points
from mme_core.extract.flow import ALGORITHMS, FlowFunction, flow_function
from mme_core.extract.tracks import sample
from mme_core.spec import TargetSpec

UNKNOWN = 1e9  # components above it mark pixels without ground truth
SPEC = TargetSpec()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--flow", nargs="+", default=list(ALGORITHMS), metavar="NAME")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    scenes = sorted((arguments.folder / "other-gt-flow").iterdir())
    print(f"{'flow':14}{'error':>8}{'track 50 %':>12}{'90 %':>8}{'ms':>9}   ({len(scenes)} scenes)")
    for name in arguments.flow:
        results = [
            measure(flow_function(name), arguments.folder / "other-data" / truth.name, truth)
            for truth in scenes
        ]
        errors, steps, times = zip(*results)
        middle, high = np.percentile(np.concatenate(steps), [50, 90])
        print(
            f"{name:14}{np.mean(errors):8.2f}{middle:12.2f}{high:8.2f}{np.mean(times):9.1f}",
            flush=True,
        )


def measure(flow: FlowFunction, images: Path, truth: Path) -> tuple[float, np.ndarray, float]:
    """Mean end-point error, errors of the points' steps, milliseconds."""
    first, second = (
        cv2.imread(str(images / f"frame{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (10, 11)
    )
    start = time.process_time()
    found_HW2 = flow(first, second)
    milliseconds = 1e3 * (time.process_time() - start)
    true_HW2 = read_flow(truth / "flow10.flo")
    known_HW = (np.abs(true_HW2) < UNKNOWN).all(-1)
    error = np.linalg.norm(found_HW2 - true_HW2, axis=-1)[known_HW].mean()
    rows, columns = (side // SPEC.patch for side in first.shape)
    points_N2 = grid_points(rows, columns, SPEC).reshape(-1, 2)
    fully_known = sample(known_HW[..., None].astype(np.float32), points_N2)[:, 0] == 1
    points_N2 = points_N2[fully_known]
    steps = np.linalg.norm(sample(found_HW2, points_N2) - sample(true_HW2, points_N2), axis=-1)
    return float(error), steps, milliseconds


def read_flow(path: Path) -> np.ndarray:
    """A Middlebury .flo file: float32 [H, W, 2]."""
    width, height = np.fromfile(path, np.int32, 2, offset=4)
    return np.fromfile(path, np.float32, offset=12).reshape(height, width, 2)


if __name__ == "__main__":
    main()
