"""What is each departure from the paper's setting worth? `pretrain/plus.yaml` rests on the answer.

    python benchmarks/ablation.py --work runs/ablation --seeds 2 --jobs 2
    python benchmarks/ablation.py --videos 60 --labelled 40 --steps 10 --only paper flip

Pre-trains a tiny encoder on generated videos, once in the paper's setting and once with each
change alone, for the same steps and clips. Half of the videos show one moving texture (as in
benchmarks/learning.py). The other half show one that moves in a disc over a still picture, as a
camera at rest sees it. Then probes test the frozen encoders on the demo set, whose class is the
motion alone.

Prints accuracies on held-out videos, mean ± deviation over the seeds of pre-training and probes,
and the held-out losses as shares of the best constant's. Losses can be compared only between
settings with the same targets. All files go to --work; existing results are not computed again.
The results are in docs/measurements/ablation.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import learning
import numpy as np
import torch
from downstream import KINDS, make_store
from omegaconf import OmegaConf

from mme_core.datasets import load_manifest
from mme_core.datasets.demo import HEIGHT, WIDTH, encode
from mme_core.weights.run_folder import read_metrics
from train import pretrain, probe

PAPER = ["norm.floor=0", "data.flip=false"]  # overrides the recipe of benchmarks/learning.py
QUIET = ["data.workers=0", "eval.every=10000", "eval.panels=0", "eval.knn=0"]
HALF_WARMUP = "optim.warmup_epochs=5"  # an epoch of two crops has twice the steps
CHANGES = {  # name: words of `mme pretrain`
    "paper": [],
    "floor 0.1": ["norm.floor=0.1"],
    "floor 0.5": ["norm.floor=0.5"],
    "flip": ["data.flip=true"],
    "2 crops": ["data.crops=2", HALF_WARMUP],
    "norm scale": ["norm.kind=scale"],
    "plus": ["--config=pretrain/plus.yaml", HALF_WARMUP],
    "all three": ["norm.floor=0.1", "data.flip=true", "data.crops=2", HALF_WARMUP],
    "norm none": ["norm.kind=none"],
    "motion mask": ["mask.kind=motion"],
    "pixels too": ["loss.contents=[trajectory,pixel]"],
    "release": ["--config=pretrain/release.yaml"],
    "random": [],
}
PROBES = KINDS[1:]


def main() -> None:
    options = _parse()
    pretraining, held_out = make_unlabelled(options.work, options.videos, learning.SPEC)
    train, test = make_labelled(options.work, options.labelled, learning.SPEC)
    stores = {"pretrain": pretraining, "held_out": held_out, "train": train, "test": test}
    names = options.only or list(CHANGES)
    seeds = range(options.seeds)
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), **one_thread) as pool:
        runs = {
            (name, seed): pool.submit(run, options.work, stores, name, seed, options.steps)
            for seed in seeds
            for name in names
        }
        found = {name: [runs[name, seed].result() for seed in seeds] for name in names}
    print(f"{'':<12}" + "".join(f"{kind:>14}" for kind in PROBES) + "   of the constant's loss")
    for name in names:
        show(name, found[name])


def make_unlabelled(work: Path, videos: int, spec: list[str]) -> tuple[Path, Path]:
    """Stores for pre-training and for the held-out loss; one video in five is held out."""
    parts: dict[str, list[Path]] = {"pretrain": [], "held-out": []}
    for number in range(videos):
        part = "held-out" if number % 5 == 0 else "pretrain"
        path = work / "unlabelled" / part / f"{number:04d}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(number)
            encode(path, render_disc(rng) if number % 2 else learning.render(rng))
        parts[part].append(path)
    return tuple(make_store(work, name, paths, [name], spec) for name, paths in parts.items())


def make_labelled(work: Path, videos: int, spec: list[str]) -> tuple[Path, Path]:
    """Stores of the demo set: every second round of its classes is held out."""
    root = work / "labelled"
    load_manifest("demo", str(root), videos=videos)
    classes = sorted(path.name for path in root.iterdir() if path.is_dir())
    found = [sorted((root / name).glob("*.mp4")) for name in classes]
    return tuple(
        make_store(work, part, [p for paths in found for p in paths[first::2]], classes, spec)
        for first, part in enumerate(("train", "test"))
    )


def render_disc(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A moving texture in a disc that glides with it over a still one: RGB [HEIGHT, WIDTH, 3]."""
    still = next(learning.render(rng)).astype(np.float32)
    radius = rng.uniform(0.25, 0.45) * HEIGHT
    centre = np.array([WIDTH, HEIGHT]) * rng.uniform(0.3, 0.7, 2)
    glide = rng.uniform(-0.8, 0.8, 2)
    for number, frame in enumerate(learning.render(rng, glide)):
        place = centre + glide * (number - learning.FRAMES / 2)
        disc = np.zeros((HEIGHT, WIDTH, 1), np.float32)
        cv2.circle(disc, place.round().astype(int).tolist(), round(radius), 1.0, -1, cv2.LINE_AA)
        grain = rng.normal(0, 2, (HEIGHT, WIDTH, 1))
        yield np.clip(still + disc * (frame - still) + grain, 0, 255).astype(np.uint8)


def run(work: Path, stores: dict[str, Path], name: str, seed: int, steps: int) -> dict[str, float]:
    """Accuracy of each probe, and the held-out losses as shares of the constant's."""
    folder = work / f"seed{seed}" / name.replace(" ", "-")
    report = folder / "probe" / "probe.json"
    if not report.exists():
        init = "none"
        if name != "random":
            init = folder / "run"
            base = folder / "base.yaml"  # a file, because recipes cannot override key=value words
            base.parent.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(OmegaConf.from_dotlist([*learning.RECIPE, *QUIET, *PAPER]), base)
            words = [f"store={stores['pretrain']}", f"val_store={stores['held_out']}"]
            words += [f"out={init}", f"seed={seed}", f"optim.steps={steps}", "device=cpu"]
            assert pretrain.main([f"--config={base}", *CHANGES[name], *words]) == 0
        words = [f"store={stores['train']}", f"val_store={stores['test']}", f"seed={seed}"]
        words += ["data.workers=0", "view.clips=2", "epochs=40", "batch_size=64", "device=cpu"]
        words += ["lrs=[5e-3,1e-3,3e-4]", "weight_decays=[0.01,0.4]", "baselines=false"]
        words += [word for word in learning.RECIPE if word.startswith("model.")]
        assert probe.main([*words, f"init={init}", f"out={folder / 'probe'}"]) == 0
    row = json.loads(report.read_text())["rows"][0]
    found = {kind: 100 * row[kind]["accuracy"] for kind in PROBES}
    if name != "random":
        last = [row for row in read_metrics(folder / "run") if "val_loss" in row][-1]
        contents = [key.removeprefix("constant_") for key in last if key.startswith("constant_")]
        contents.remove("loss")
        found |= {name: last[f"val_{name}"] / last[f"constant_{name}"] for name in contents}
    return found


def show(name: str, runs: list[dict[str, float]]) -> None:
    columns = {key: [found[key] for found in runs] for key in runs[0]}
    cells = [f"{np.mean(columns[kind]):>7.1f} ± {np.std(columns[kind]):<4.1f}" for kind in PROBES]
    losses = [f"{key} {np.mean(columns[key]):.3f}" for key in columns if key not in PROBES]
    print(f"{name:<12}{''.join(cells)}   {', '.join(losses)}", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument(
        "--videos", type=int, default=300, help="number of pre-training videos; default 300"
    )
    parser.add_argument(
        "--labelled", type=int, default=400, help="number of labelled videos, half for the test"
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of runs at once, one thread each"
    )
    parser.add_argument("--only", nargs="+", choices=CHANGES, help="run only these settings")
    options = parser.parse_args()
    options.work = options.work.absolute()
    return options


if __name__ == "__main__":
    main()
