"""Does pre-training help on a small labelled set? Fine-tuning and probes, with controls.

    python benchmarks/downstream.py --root DIR/tennis7 --work runs/tennis7-downstream --seeds 3
    python benchmarks/downstream.py --root DIR/weizmann4 --work runs/weizmann4-downstream \
        --seeds 3 --subjects 8 --image-size 64 --short-side 64 --steps 200 --batch 8
    python benchmarks/downstream.py          # a generated set, one seed: does it run?

Makes the targets and pre-trains on the training videos alone. Then it fine-tunes and probes from
these weights and from random ones, on clips and on one repeated still frame, with several seeds.
Prints accuracies as mean ± deviation over the seeds.

--generated N pre-trains on N generated videos of moving textures first (benchmarks/learning.py),
because a few dozen videos teach little about motion. With --subjects N the videos are
DIR/CLASS/NUMBER.mp4 and the subject is NUMBER // N. One subject after the other is left out, and
the accuracy covers the test videos of all subjects. Without --subjects, DIR/split.csv names the
test videos. All files go to --work; existing results are not computed again. The results are in
docs/measurements/downstream.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import learning
import numpy as np
import torch

from mme_core.datasets import load_manifest
from mme_core.datasets.demo import encode
from preprocess import flows
from train import finetune, pretrain, probe

KINDS = ("finetune", "linear", "attentive", "knn")


def folds(root: Path, subjects: int | None) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """Yields (name, training videos, test videos) of each fold."""
    if subjects is None:
        rows = list(csv.DictReader((root / "split.csv").open()))
        parts = {
            split: [r["path"] for r in rows if r["split"] == split] for split in ("train", "val")
        }
        yield "split", *([root / path for path in parts[split]] for split in ("train", "val"))
        return
    videos = sorted(root.glob("*/*.mp4"))
    subject = {video: int(video.stem) // subjects for video in videos}
    for number in sorted(set(subject.values())):
        yield (
            f"subject{number}",
            [video for video in videos if subject[video] != number],
            [video for video in videos if subject[video] == number],
        )


def make_store(
    folder: Path, name: str, videos: list[Path], classes: list[str], spec: list[str]
) -> Path:
    """Extracts the targets of those videos that the store does not hold yet."""
    store, listing = folder / name, folder / f"{name}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{v} {classes.index(v.parent.name)}\n" for v in videos))
    words = ["--dataset", "csv", "--root", str(videos[0].parents[1]), "--list", str(listing)]
    assert flows.main([*words, "--serial", "--store", str(store), *spec]) == 0
    return store


def model_words(options: argparse.Namespace) -> list[str]:
    return [
        "model.size=tiny",
        f"model.depth={options.depth}",
        f"model.frames={options.frames}",
        f"model.image_size={options.image_size}",
    ]


def pretrained(out: Path, options: argparse.Namespace, steps: int, *words: str) -> Path:
    """Pre-trains for this number of steps, unless it is done. Returns the run's folder."""
    if not (out / "done").exists():
        batch = options.batch
        recipe = ["decoder.width=96", "decoder.heads=3", "norm.floor=0.1", "optim.clip=1.0"]
        recipe += [f"data.batch_size={batch}", "data.workers=0"]
        recipe += [f"optim.lr={256 * options.lr / batch}", "optim.warmup_epochs=5"]
        recipe += [f"optim.steps={steps}", "log.every=50", "eval.every=1000"]
        recipe += ["eval.panels=0", "eval.knn=0", "checkpoint.every=100", "checkpoint.keep=1"]
        recipe += ["device=cpu", f"out={out}", *model_words(options)]
        assert pretrain.main([*recipe, *words]) == 0
        (out / "done").touch()
    return out


def learn_from_generated(options: argparse.Namespace, spec: list[str]) -> Path:
    """Pre-trains on generated videos only. Returns the run's folder."""
    folder = options.work / "generated"
    videos = []
    for number in range(options.generated):
        video = folder / "videos" / "moving" / f"{number:04d}.mp4"
        if not video.exists():
            video.parent.mkdir(parents=True, exist_ok=True)
            encode(video, learning.render(np.random.default_rng(number)))
        videos.append(video)
    store = make_store(folder, "train", videos, ["moving"], spec)
    words = [f"store={store}", "seed=0"]
    return pretrained(folder / "run", options, options.generated_steps, *words)


class Experiment:
    """The commands of one fold and one seed, and their results."""

    def __init__(
        self,
        folder: Path,
        stores: tuple[Path, Path],
        seed: int,
        init: Path | None,
        options: argparse.Namespace,
    ) -> None:
        self.folder, self.seed, self.options = folder / f"seed{seed}", seed, options
        self.train, self.val = stores
        self.init = init
        self.model = model_words(options)
        self.common = [f"seed={seed}", "device=cpu", f"store={self.train}", f"val_store={self.val}"]

    def pretrain(self) -> Path:
        words = [*self.common, *([f"init={self.init}"] if self.init else [])]
        return pretrained(self.folder / "pretrain", self.options, self.options.steps, *words)

    def finetune(self, init: str | Path, name: str, still: bool) -> float:
        out = self.folder / name
        if not (out / "evaluation.json").exists():
            words = ["data.batch_size=16", "data.crops=1", "data.workers=0", "model.drop_path=0.1"]
            words += ["augment.scale=[0.5,1.0]", "augment.flip=false", "augment.rand_augment=null"]
            words += ["augment.mixup=0", "augment.cutmix=0", "augment.erase=0", "optim.lr=0.016"]
            words += [f"optim.epochs={self.options.epochs}", "optim.warmup_epochs=3"]
            words += ["eval.every=0", "eval.clips=2", "eval.crops=3", "log.every=50"]
            words += ["checkpoint.every=10000", "checkpoint.keep=1", f"data.still={still}"]
            words += [f"init={init}", f"out={out}"]
            assert finetune.main([*self.common, *self.model, *words]) == 0
        return json.loads((out / "evaluation.json").read_text())["top1"]

    def probes(self, init: Path) -> list[dict]:
        """Returns the rows of the report: (given weights, random) × (video, still)."""
        out = self.folder / "probe"
        if not (out / "probe.json").exists():
            words = ["data.workers=0", "view.clips=2", "epochs=40", "batch_size=64"]
            words += ["lrs=[5e-3,1e-3,3e-4]", "weight_decays=[0.01,0.4]"]
            words += [f"init={init}", f"out={out}"]
            assert probe.main([*self.common, *words]) == 0
        return json.loads((out / "probe.json").read_text())["rows"]

    def run(self) -> dict[tuple[str, str, str], float]:
        """Returns {(weights, clip, kind): accuracy}."""
        init = self.pretrain()
        found = {}
        for row in self.probes(init):
            weights = "random" if row["weights"].startswith("random") else "MME"
            clip = "still" if row["clip"].startswith("still") else "video"
            for kind in KINDS[1:]:
                found[weights, clip, kind] = row[kind]["accuracy"]
        starts = (("MME", init), ("random", "none")) if self.options.epochs else ()
        for weights, start in starts:
            for clip in ("video", "still"):
                name = f"finetune-{weights}-{clip}"
                found[weights, clip, "finetune"] = self.finetune(start, name, clip == "still")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="labelled videos; default: 60 generated ones")
    parser.add_argument("--work", type=Path, default=Path("runs/downstream"))
    parser.add_argument("--subjects", type=int, help="leave one subject out; see above")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, help="pre-training steps; default 600, for generated videos 60"
    )
    parser.add_argument("--batch", type=int, default=16, help="batch size of pre-training")
    parser.add_argument("--lr", type=float, default=2.5e-4, help="learning rate of pre-training")
    parser.add_argument(
        "--generated", type=int, help="number of generated videos to pre-train on first"
    )
    parser.add_argument("--generated-steps", type=int, default=1500)
    parser.add_argument(
        "--epochs", type=int, default=20, help="epochs of fine-tuning; 0: only probes"
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=80)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--short-side", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.steps = options.steps or (600 if options.root else 60)
    if options.root is None:
        options.root = options.work / "videos"
        load_manifest("demo", str(options.root), videos=60)
    options.root = options.root.absolute()

    classes = sorted(path.name for path in options.root.iterdir() if path.is_dir())
    spec = [f"spec.stride={options.stride}", f"spec.short_side={options.short_side}"]
    spec += [f"spec.long_side={options.short_side // 16 * 16 + 32}"]
    init = learn_from_generated(options, spec) if options.generated else None
    parts = list(folds(options.root, options.subjects))
    videos = sum(len(test) for _, _, test in parts)
    results: list[dict[tuple[str, str, str], float]] = []  # one for each seed
    for seed in range(options.seeds):
        hits: Counter[tuple[str, str, str]] = Counter()
        for name, train, test in parts:
            folder = options.work / name
            stores = (
                make_store(folder, "train", train, classes, spec),
                make_store(folder, "val", test, classes, spec),
            )
            for key, accuracy in Experiment(folder, stores, seed, init, options).run().items():
                hits[key] += accuracy * len(test)
        results.append({key: count / videos for key, count in hits.items()})
        show(results, videos)


def show(results: list[dict[tuple[str, str, str], float]], videos: int) -> None:
    print(f"\n{videos} test clips, {len(results)} seeds; mean ± deviation over seeds, %")
    kinds = [kind for kind in KINDS if ("MME", "video", kind) in results[0]]
    print("weights  clip  " + "".join(f"{kind:>15}" for kind in kinds))
    for weights in ("random", "MME"):
        for clip in ("video", "still"):
            cells = [[100 * result[weights, clip, kind] for result in results] for kind in kinds]
            text = "".join(f"{np.mean(cell):>8.1f} ± {np.std(cell):<4.1f}" for cell in cells)
            print(f"{weights:<9}{clip:<6}{text}", flush=True)


if __name__ == "__main__":
    main()
