"""`mme retarget` beside extraction from the videos: error of the targets, speed, disk space.

    python benchmarks/retarget.py [VIDEO ...] [--repeats 3] [spec.length=8 ...]

The flow of the videos is kept once. Then a shard of their targets is made from kept flow and from
the videos in turn, `--repeats` times; the fastest of each counts, in processor time on one core,
with frames and writing. Errors are those of the stored targets, valid points only: of a step and of
the last point of a trajectory in canvas pixels, and the cosine between HOG at the tracked points.
Without files it takes three videos of the demo set. The results are in docs/measurements/stage1.md.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from one_video import processor_seconds, split_words, store_video

from mme_core import TargetStore
from mme_core.extract.kept_flow import KeptFlow
from mme_core.spec import TargetSpec
from mme_core.store.layout import flow_name
from mme_core.store.target_store import open_or_create_store
from mme_core.store.writer import ShardWriter
from preprocess.stored_frames import StoredFrames, can_be_copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="VIDEO | spec.FIELD=VALUE")
    parser.add_argument("--repeats", type=int, default=3, help="default 3")
    arguments = parser.parse_intermixed_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos, overrides = split_words(arguments.words, folder, demo=3)
        measure(videos, TargetSpec.from_overrides(overrides), arguments.repeats)


def measure(videos: list[Path], spec: TargetSpec, repeats: int) -> None:
    """Prints a row of errors for each video, and the speed."""
    with tempfile.TemporaryDirectory() as folder:
        kept = TargetSpec(flow=spec.flow, short_side=spec.short_side, long_side=spec.long_side)
        write(videos, Path(folder, "source"), kept, keep=True)
        flow = Path(folder, "source", flow_name(0))
        times = []
        for run in range(repeats):
            direct, retargeted = (Path(folder, f"{name}{run}") for name in ("direct", "kept"))
            times.append(
                (
                    processor_seconds(lambda store=direct: write(videos, store, spec)),
                    processor_seconds(lambda store=retargeted: write(videos, store, spec, flow)),
                )
            )
        compare(TargetStore(direct), TargetStore(retargeted))
        frames = int(TargetStore(direct).videos["frames"].sum())
        fastest = [min(column) for column in zip(*times)]
        size = flow.stat().st_size / 1e3 / (frames - len(videos))
    ms = [f"{1e3 * value / frames:.2f} ms" for value in fastest]
    print(f"a raw frame: from the video {ms[0]}, from kept flow {ms[1]}: ", end="")
    print(f"{fastest[0] / fastest[1]:.2f} times as fast; {size:.0f} kB of flow a frame pair")


def write(
    videos: list[Path],
    store: Path,
    spec: TargetSpec,
    flow: Path | None = None,
    keep: bool = False,
) -> None:
    """Makes a store of one shard: from the flow in a file, or computing it."""
    open_or_create_store(store, spec, "folder", None, [])
    with ShardWriter(store, 0, spec, keep) as writer:
        for path in videos:
            with KeptFlow(str(flow), path.name) if flow else nullcontext() as kept:
                store_video(
                    writer,
                    path,
                    spec,
                    kept=kept,
                    keep=writer.keep if keep else None,
                    stored=stored_frames(flow, path.name, spec),
                )


def stored_frames(flow: Path | None, video: str, spec: TargetSpec) -> StoredFrames | None:
    """The frames of the store with this file of flow, as `mme retarget` copies them."""
    if not flow:
        return None
    store = TargetStore(flow.parents[1])
    if not can_be_copied(store.spec, spec):
        return None
    return StoredFrames(store, store.videos["id"].tolist().index(video))


def compare(one: TargetStore, other: TargetStore) -> None:
    print(f"{'':24}| step median   95 %   end median | HOG cosine mean      5 %")
    every: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for video, row in enumerate(one.videos):
        every.append(errors(one, other, video, (row["count"] - 1) // one.spec.clip_step + 1))
        print_row(row["id"], *every[-1])
    print_row("all", *map(np.concatenate, zip(*every)))


def print_row(name: str, steps: np.ndarray, ends: np.ndarray, cosines: np.ndarray) -> None:
    print(
        f"{name[:23]:24}| {np.median(steps):11.4f} {np.quantile(steps, 0.95):6.3f} "
        f"{np.median(ends):12.4f} | {cosines.mean():15.5f} {np.quantile(cosines, 0.05):8.5f}",
        flush=True,
    )


def errors(
    one: TargetStore, other: TargetStore, video: int, tubelets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of the steps and of the last points, pixels, and cosines of HOG that is not flat."""
    a, b = one.read(video, 0, tubelets), other.read(video, 0, tubelets)
    valid = a.valid & b.valid
    steps = np.linalg.norm(a.displacement - b.displacement, axis=-1)[valid]
    ends = np.linalg.norm(a.points - b.points, axis=-1)[..., -1][valid]
    x, y = a.hog[valid], b.hog[valid]
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    textured = lengths > 0.01
    return steps.ravel(), ends, (x * y).sum(-1)[textured] / lengths[textured]


if __name__ == "__main__":
    main()
