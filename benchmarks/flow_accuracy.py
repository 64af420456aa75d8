"""Error and cost of every flow algorithm and of DIS with other parameters.

    python benchmarks/flow_accuracy.py [DIR] [--flow NAME ...] [--slow] [--plot FILE.png]

DIR is the Middlebury training set: `other-data/SCENE/frame10.png`, `frame11.png` and
`other-gt-flow/SCENE/flow10.flo` (https://vision.middlebury.edu/flow/data/), 584×388 to 640×480.
Its photographs are also the textures of the scenes with known motion (`known_motion.py`), which
are 340×256 and read back from h264 and mpeg4. Without DIR these have noise as texture.

    error   end-point error over all pixels of Middlebury with ground truth, mean of the scenes
    track   error of one step of the grid's points, read bilinearly as in stage 1; median and
            90th percentile over the points of all scenes
    half    the same for the coded scenes at half their size, as with spec.short_side=128
    time    processor time over that of dis-medium on the same pairs, measured in turn

All errors are in pixels. `--slow` adds the algorithms that take over ten times as long as
dis-medium. The results are in docs/measurements/stage1.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import known_motion
import numpy as np

from mme_core.canvas import grid_points
from mme_core.extract.flow import ALGORITHMS, flow_function
from mme_core.extract.tracks import sample
from mme_core.spec import TargetSpec

UNKNOWN = 1e9  # components above it mark pixels without ground truth
SPEC = TargetSpec()
SLOW = ("tvl1", "deepflow")
BASE = "dis-medium"
PAIRS = (1, 3, 5)  # of each coded scene
MARKERS = "os^vDPX*"  # of the algorithms in the plot
BORDER = 8  # pixels: points that end nearer to the border do not count

# (first image, second image, flow to start from or None) -> flow
Method = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Two images, the true flow (NaN where unknown), and flows that a method may start from.

    `set` is middlebury, a codec, or half. `before` is the image before the first one.
    """

    set: str
    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    before: np.ndarray | None = None
    vectors: np.ndarray | None = None


@dataclass
class Result:
    """errors: mean of every Middlebury pair; steps: errors of the points; times: seconds."""

    errors: list[float] = field(default_factory=list)
    steps: dict[str, list[np.ndarray]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    parser.add_argument("--flow", nargs="+", metavar="NAME", help="names of the first column")
    parser.add_argument("--slow", action="store_true", help=f"adds {' and '.join(SLOW)}")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    methods = _methods()
    names = arguments.flow or [name for name in methods if arguments.slow or name not in SLOW]
    pairs = list(_pairs(arguments.folder))
    sets = list(dict.fromkeys(pair.set for pair in pairs))
    heads = "".join(f"{f'{one}: 50 %, 90 %, time':>32}" for one in sets)
    print(f"{'':36}{'error':>7}{heads}")
    rows = {}
    for name in names:
        rows[name] = row = _measure(methods[name], pairs, name in SLOW)
        error = f"{np.mean(row.errors):7.3f}" if row.errors else f"{'':7}"
        cells = "".join(_cell(row, one) for one in sets)
        print(f"{name:36}{error}{cells}", flush=True)
    if arguments.plot:
        _draw(rows, arguments.plot)


def _cell(row: Result, one: str) -> str:
    middle, high = np.percentile(np.concatenate(row.steps[one]), [50, 90])
    return f"{middle:14.3f}{high:8.3f}{_time(row, one):10.2f}"


def _time(row: Result, one: str) -> float:
    mine, base = np.sum(np.array(row.seconds[one]), axis=0)
    return mine / base


def _methods() -> dict[str, Callable[[], Method]]:
    """Every named algorithm, and DIS with parameters off the chosen ones."""

    def named(name: str) -> Callable[[], Method]:
        def make() -> Method:
            flow = flow_function(name)
            return lambda first, second, start: flow(first, second)

        return make

    methods = {name: named(name) for name in ALGORITHMS}
    for label, changes in _VARIANTS.items():
        methods[label] = lambda changes=changes: _dis(**changes)
    return methods


# Each differs from dis-tuned in the named parameters. A start is read by `_start`.
_VARIANTS: dict[str, dict[str, int]] = {
    "tuned, not smoothed": {"smooth": 0},
    "tuned, smoothed by 3 × 3": {"smooth": 3},
    "tuned, smoothed by 7 × 7": {"smooth": 7},
    "tuned, patch 8": {"patch": 8},
    "tuned, patch 8, stride 4": {"patch": 8, "stride": 4},
    "tuned, patch 8, stride 5, 6 refined": {"patch": 8, "stride": 5, "refined": 6},
    "tuned, patch 6, stride 4": {"patch": 6, "stride": 4},
    "tuned, stride 4": {"stride": 4},
    "tuned, stride 5": {"stride": 5},
    "tuned, 5 steps": {"steps": 5},
    "tuned, 12 steps": {"steps": 12},
    "tuned, 25 steps": {"steps": 25},
    "tuned, 0 refined": {"refined": 0},
    "tuned, 2 refined": {"refined": 2},
    "tuned, 8 refined": {"refined": 8},
    "tuned, alpha 10": {"alpha": 10},
    "tuned, alpha 40": {"alpha": 40},
    "tuned, delta 1": {"delta": 1},
    "tuned, gamma 2": {"gamma": 2},
    "tuned, gamma 20": {"gamma": 20},
    "tuned, full size": {"finest": 0},
    "tuned, quarter size": {"finest": 2},
    "tuned, half size then refined": {"refine_full": 2},
    "tuned, from the previous flow": {"start": 1},
    "tuned, from motion vectors": {"start": 2},
}


def _dis(
    patch: int = 5,
    stride: int = 3,
    steps: int = 2,
    refined: int = 4,
    finest: int = 1,
    alpha: int = 20,
    delta: int = 5,
    gamma: int = 10,
    smooth: int = 5,
    start: int = 0,
    refine_full: int = 0,
) -> Method:
    """start: 0 nothing, 1 the flow of the pair before, 2 the codec's motion vectors.

    refine_full: variational iterations at full size, after half of them were left out before.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setPatchSize(patch)
    dis.setPatchStride(stride)
    dis.setGradientDescentIterations(steps)
    dis.setVariationalRefinementIterations(refined - refine_full)
    dis.setFinestScale(finest)
    dis.setVariationalRefinementAlpha(alpha)
    dis.setVariationalRefinementDelta(delta)
    dis.setVariationalRefinementGamma(gamma)
    full = cv2.VariationalRefinement.create()
    full.setFixedPointIterations(refine_full)

    def flow(first: np.ndarray, second: np.ndarray, begin: np.ndarray | None) -> np.ndarray:
        if smooth:
            first = cv2.GaussianBlur(first, (smooth, smooth), 0)
            second = cv2.GaussianBlur(second, (smooth, smooth), 0)
        found = dis.calc(first, second, begin)
        return full.calc(first, second, found) if refine_full else found

    flow.start = start  # type: ignore[attr-defined]
    return flow


def _pairs(folder: Path | None) -> Iterator[Pair]:
    if folder is not None:
        for truth in sorted((folder / "other-gt-flow").iterdir()):
            images = folder / "other-data" / truth.name
            first, second = (
                cv2.imread(str(images / f"frame{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (10, 11)
            )
            flow = read_flow(truth / "flow10.flo")
            flow[(np.abs(flow) > UNKNOWN).any(-1)] = np.nan
            yield Pair("middlebury", first, second, flow)
    coded, small = [], []
    for scene in known_motion.scenes(known_motion.photographs_of(folder) if folder else []):
        for r in PAIRS:
            images = scene.frames[r - 1 : r + 2]
            coded.append(Pair(scene.codec, *images[1:], scene.flow[r], images[0], scene.vectors[r]))
            before, first, second = (_half(image) for image in images)
            flow, vectors = (_half(one[r]) / 2 for one in (scene.flow, scene.vectors))
            small.append(Pair("half", first, second, flow, before, vectors))
    yield from sorted(coded, key=lambda pair: pair.set)
    yield from small


def _half(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _measure(make: Callable[[], Method], pairs: Sequence[Pair], is_slow: bool) -> Result:
    result, base = Result(), flow_function(BASE)
    method, shape, seen = make(), None, 0
    for pair in pairs:
        seen += 1
        if is_slow and pair.set != "middlebury" and seen % 3:
            continue
        if pair.first.shape != shape:  # DIS crashes if an object gets a start of another size
            method, shape = make(), pair.first.shape
        start = _start(method, pair)
        began = time.process_time()
        found = method(pair.first, pair.second, start)
        middle = time.process_time()
        base(pair.first, pair.second)
        mine, theirs = middle - began, time.process_time() - middle
        result.seconds.setdefault(pair.set, []).append((mine, theirs))
        error_HW = np.linalg.norm(found - pair.flow, axis=-1)
        if pair.set == "middlebury":
            result.errors.append(float(np.nanmean(error_HW)))
        result.steps.setdefault(pair.set, []).append(_steps(found, pair.flow))
    return result


def _start(method: Method, pair: Pair) -> np.ndarray | None:
    """What the method starts from; finding the previous pair's flow costs nothing in stage 1."""
    kind = getattr(method, "start", 0)
    if kind == 1 and pair.before is not None:
        return method(pair.before, pair.first, None)
    return pair.vectors.copy() if kind == 2 and pair.vectors is not None else None


def _steps(found_HW2: np.ndarray, true_HW2: np.ndarray) -> np.ndarray:
    """Errors of the steps of the grid's points that stay within the image."""
    height, width = true_HW2.shape[:2]
    points_N2 = grid_points(height // SPEC.patch, width // SPEC.patch, SPEC).reshape(-1, 2)
    true_N2 = sample(true_HW2, points_N2)
    error_N = np.linalg.norm(sample(found_HW2, points_N2) - true_N2, axis=-1)
    ends_N2 = points_N2 + true_N2
    last = np.array([width - 1, height - 1])
    kept = ((ends_N2 >= BORDER) & (ends_N2 <= last - BORDER)).all(-1)  # False where unknown
    return error_N[kept]


def read_flow(path: Path) -> np.ndarray:
    """A Middlebury .flo file: float32 [H, W, 2]."""
    width, height = np.fromfile(path, np.int32, 2, offset=4)
    return np.fromfile(path, np.float32, offset=12).reshape(height, width, 2)


def _draw(rows: dict[str, Result], path: Path) -> None:
    """Plots error against time: Middlebury on the left, coded scenes on the right."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    titles = {
        "middlebury": "Middlebury: end-point error, px",
        "h264": "h264, 340×256: median error of a step, px",
    }
    sets = [one for one in titles if one in next(iter(rows.values())).steps]
    figure, panels = plt.subplots(1, len(sets), squeeze=False, layout="constrained")
    figure.set_size_inches(5 * len(sets) + 1.5, 4)
    for panel, one in zip(panels[0], sets):
        for name, row in rows.items():
            errors, mean = row.steps[one], one == "middlebury"
            error = np.mean(row.errors) if mean else np.median(np.concatenate(errors))
            place = (_time(row, one), error)
            if name in ALGORITHMS:
                panel.plot(*place, MARKERS[list(ALGORITHMS).index(name)], label=name, zorder=3)
            else:
                panel.plot(*place, ".", color="0.6")
        panel.set_xscale("log")
        panel.set_xlabel("processor time / dis-medium")
        panel.set_title(titles[one], fontsize=9)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
