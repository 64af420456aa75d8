"""Table 5 on real videos by one command: from the videos to the table, on one GPU or on a CPU.

    python benchmarks/paper_tables.py VIDEOS --work runs/tables [mme ablate's words]
    python benchmarks/paper_tables.py VIDEOS --work /tmp/toy --toy --processes 2
    python benchmarks/paper_tables.py VIDEOS --work runs/real-cpu --processes 2 \
        --base ablate/real-cpu.yaml --unlabelled bn-train --patch 16
    python benchmarks/paper_tables.py VIDEOS --work runs/mixed --processes 2 \
        --base ablate/mixed-cpu.yaml --unlabelled bn-train --generated

VIDEOS holds the folders egogestar, bnmocap, tennis7 and weizmann4, each as CLASS/NAME.mp4, the
first two with split.csv. Makes their targets with all cores, and runs ablate/real.yaml with
ablate/table5-short.yaml: pre-training on the training videos of all four sets, which lie on the
GPU, and probes on the first two sets. The last two commands are smaller grids for a CPU; the
very last one pre-trains on generated videos too. A command goes on where it was stopped. --toy: a
few videos and steps, on a CPU.
docs/science.md has the plan and the results.
"""

from __future__ import annotations

import argparse
import csv
import queue
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import generated_tables

from mme_core.datasets import Manifest, VideoItem, load_manifest
from mme_core.io.place import open_place
from mme_core.spec import CELLS, TargetSpec
from mme_core.store.table import load_table
from mme_core.store.target_store import open_or_create_store
from preprocess.isolate import Isolated
from preprocess.jobs import QUARANTINED, ShardJob
from preprocess.plan import plan_shards
from train import ablate
from train.recipes.loading import read_yaml

SPEC = ["spec.stride=2", "spec.short_side=128", "spec.long_side=160"]
POINTS = {8: 1, 16: 4}  # of a patch of this side: they are equally dense


class Part(NamedTuple):
    """The videos of a store.

    folder   a folder in VIDEOS
    split    a value of the column `split` of its split.csv; None: all videos
    subject  a value of the column `subject`: this one's videos alone
    others   all videos but the subject's
    """

    folder: str
    split: str | None = None
    subject: str = ""
    others: bool = False


UPLOADS = ("B", "C", "D")  # of gestures, to leave out in turn; upload A is the split `val`
SETS = {
    "ego-train": Part("egogestar", "train"),
    "ego-test": Part("egogestar", "val"),
    "bn-train": Part("bnmocap", "train"),
    "bn-test": Part("bnmocap", "val"),
    "tennis": Part("tennis7"),
    "weizmann": Part("weizmann4"),
    **{f"ego-{x}-train": Part("egogestar", subject=x, others=True) for x in UPLOADS},
    **{f"ego-{x}-test": Part("egogestar", subject=x) for x in UPLOADS},
}
UNLABELLED = ("ego-train", "bn-train", "tennis", "weizmann")
MEASURED = {  # first word of a measure: the stores to learn on and to test on
    "gestures": ("ego-train", "ego-test"),
    "actions": ("bn-train", "bn-test"),
    "motions": ("train", "test"),  # of generated videos
    **{f"gestures_{x}": (f"ego-{x}-train", f"ego-{x}-test") for x in UPLOADS},
}
VIDEOS_PER_SHARD = 12
TOY = [
    "device=cpu", "jobs=1", "seeds=[0]", "pretrain.optim.steps=2", "pretrain.model.size=tiny",
    "pretrain.model.depth=1", "pretrain.data.batch_size=4",
]  # fmt: skip
TOY_MEASURE = {
    "probe": ["epochs=1", "data.workers=0"],
    "finetune": ["optim.epochs=1", "model.depth=1"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/tables"))
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--toy", action="store_true", help="a few videos and steps, on a CPU")
    parser.add_argument("--only-stores", action="store_true", help="end before the grid")
    parser.add_argument(
        "--seconds", type=int, default=0, help="then stop, with what is done; 0: never"
    )
    parser.add_argument("--base", default="ablate/real.yaml", help="what the variants share")
    parser.add_argument(
        "--unlabelled", action="append", choices=SETS, help="a set to pre-train on; repeat it"
    )
    parser.add_argument(
        "--generated", action="store_true", help="pre-train on generated videos too"
    )
    parser.add_argument("--patch", type=int, choices=POINTS, default=8, help="side of a patch")
    cells_help = "descriptor of cells to store too (spec.cells); repeat it"
    parser.add_argument("--cells", action="append", choices=CELLS, help=cells_help)
    parser.add_argument("--camera", action="store_true", help="store the camera's motion too")
    parser.add_argument("--grid", default="ablate/table5-short.yaml", help="the grid's variants")
    parser.add_argument("words", nargs="*", help="overrides of the grid, such as seeds=[0]")
    options = parser.parse_intermixed_args()
    began = time.monotonic()
    if options.seconds:  # a running grid answers to SIGTERM: its cells save, and it reports
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.alarm(options.seconds)

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    work = options.work.absolute()
    spec = [*SPEC, f"spec.patch={options.patch}", f"spec.points={POINTS[options.patch]}"]
    spec += [f"spec.cells={','.join(options.cells)}"] if options.cells else []
    spec += ["spec.camera=homography"] if options.camera else []
    unlabelled = options.unlabelled or UNLABELLED
    needed = {store for pair in measured(options.base).values() for store in pair} | {*unlabelled}
    names = [name for name in SETS if name in needed]
    few = 3 if options.toy else None
    made = TargetSpec.from_overrides(spec)
    write_stores(options.videos, work, names, made, options.processes, few)
    union = [work / name for name in unlabelled]
    if options.generated:
        stores = generated_tables.make_stores(work, spec, options.toy)
        union += [stores.moving, stores.train]
    say("targets made")
    if options.only_stores:
        return 0
    words = grid_words(work, options.base, union)
    if options.toy:
        words += toy_words(options.base)
    status = ablate.main([options.base, options.grid, *words, *options.words])
    say(f"grid ended with status {status}")
    return status


def measured(base: str) -> dict[str, tuple[str, str]]:
    """The stores to learn on and to test on, for each measure of the base."""
    return {name: MEASURED[name.partition("-")[0]] for name in read_yaml(base)["measures"]}


def grid_words(work: Path, base: str, unlabelled: Sequence[Path]) -> list[str]:
    """The stores of pre-training and of each measure of the base."""
    sets = measured(base)
    _, held_out = next(iter(sets.values()))
    words = [f"pretrain.store=[{','.join(map(str, unlabelled))}]"]
    words += [f"pretrain.val_store={work / held_out}"]
    for measure, (train, test) in sets.items():
        words += [f"measures.{measure}.store={work / train}"]
        words += [f"measures.{measure}.val_store={work / test}"]
    return [*words, f"out={work / 'grid'}"]


def toy_words(base: str) -> list[str]:
    """Words that make the grid small."""
    words = TOY.copy()
    for name, keys in read_yaml(base)["measures"].items():
        words += [f"measures.{name}.{word}" for word in TOY_MEASURE[keys["command"]]]
    return words


def write_stores(
    videos: Path,
    work: Path,
    names: Sequence[str],
    spec: TargetSpec,
    processes: int,
    few: int | None,
) -> None:
    """Makes the targets of some sets; without Ray, by child processes that threads wait for.

    few  number of videos of each class to use; None: all
    """
    jobs: queue.SimpleQueue[ShardJob] = queue.SimpleQueue()
    for name in names:
        part = SETS[name]
        manifest = load_manifest("folder", str(videos / part.folder), part.split)
        items = chosen(manifest, part)
        if few:
            items = [
                i for n, i in enumerate(items) if sum(i.label == j.label for j in items[:n]) < few
            ]
        url = str(work / name)
        open_or_create_store(url, spec, manifest.dataset, manifest.split, manifest.class_names)
        table = load_table(open_place(url), spec.hash)
        done, taken = set(table["id"].tolist()), set(table["shard"].tolist())
        for shard in plan_shards(items, done, taken, VIDEOS_PER_SHARD):
            jobs.put(ShardJob(shard.number, shard.items, spec, url, manifest.root, timeout=120))
    with ThreadPoolExecutor(processes) as pool:
        for future in [pool.submit(_write_all, jobs) for _ in range(processes)]:
            future.result()
    for name in names:
        load_table(open_place(str(work / name)), spec.hash)  # writes the index


def chosen(manifest: Manifest, part: Part) -> Sequence[VideoItem]:
    """The videos of the part's subject, or of all others."""
    if not part.subject:
        return manifest.items
    root = Path(manifest.root)
    with (root / "split.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        its = {str(root / row["path"]) for row in rows if row["subject"] == part.subject}
    return [item for item in manifest.items if (item.path in its) != part.others]


def _write_all(jobs: queue.SimpleQueue[ShardJob]) -> None:
    """Writes shards until there are none left; names the videos that cannot be used."""
    with Isolated([]) as isolated:
        while True:
            try:
                job = jobs.get_nowait()
            except queue.Empty:
                return
            for row in isolated.write(job, lambda outcome: None).outcomes:
                if row.status == QUARANTINED:
                    print(f"left out: {row.path}: {row.reason}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
