"""The paper's tables on generated videos, whose class is their motion. Needs a CPU alone.

    python benchmarks/generated_tables.py table5 table6 --work runs/generated [seeds=[0,1]]
    python benchmarks/generated_tables.py table5 --work /tmp/toy --toy

Writes videos and their targets, then runs ablate/generated.yaml with the grid of each table that
is named (train/configs/ablate), to WORK/TABLE. Encoders are pre-trained on textures that move,
whole or in a disc before a still picture (benchmarks/ablation.py), and on the training videos of
the demo set. Probes and fine-tuning use the demo set. Other words are keys of the grid. The same
command goes on where it was stopped. --toy: a few videos and steps.
docs/science.md has the plan and the results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import ablation

from train import ablate

SPEC = ["spec.stride=2", "spec.length=6", "spec.short_side=80", "spec.long_side=96"]
SPEC += ["spec.cells=hog,hof,mbh"]
TEXTURES = 400
TOY = [
    "seeds=[0]", "jobs=1", "pretrain.data.batch_size=4", "pretrain.optim.steps=2",
    "pretrain.model.depth=1", "measures.probe.epochs=1", "measures.finetune.optim.epochs=1",
    "measures.finetune.model.depth=1",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="*", help="grids (default: table5), and keys, such as jobs=1"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/generated"))
    parser.add_argument("--toy", action="store_true", help="a few videos and steps")
    parser.add_argument("--flow", help="spec.flow of the targets (default: the default flow)")
    parser.add_argument(
        "--textures", type=int, default=TEXTURES, help="videos of textures; a fifth is held out"
    )
    parser.add_argument("--only-stores", action="store_true", help="end before the grids")
    options = parser.parse_intermixed_args()
    work = options.work.absolute()
    flow = [f"spec.flow={options.flow}"] if options.flow else []
    stores = make_stores(work, [*SPEC, *flow], options.toy, options.textures)
    if options.only_stores:
        return 0
    words = [f"pretrain.store=[{stores.moving},{stores.train}]"]
    words += [f"pretrain.val_store={stores.held_out}"]
    for measure in ("probe", "finetune"):
        words += [f"measures.{measure}.store={stores.train}"]
        words += [f"measures.{measure}.val_store={stores.test}"]
    words += TOY if options.toy else []
    keys = [word for word in options.words if "=" in word]
    grids = [word for word in options.words if "=" not in word] or ["table5"]
    for grid in grids:
        files = ["ablate/generated.yaml", f"ablate/{grid}.yaml"]
        status = ablate.main([*files, *words, *keys, f"out={work / grid}"])
        if status:  # a grid that was stopped or has failed cells is not followed by the next
            return status
    return 0


class Stores(NamedTuple):
    """Textures that move, of which a fifth is held out, and the two halves of the demo set."""

    moving: Path
    held_out: Path
    train: Path
    test: Path


def make_stores(work: Path, spec: list[str], toy: bool, textures: int = TEXTURES) -> Stores:
    """Writes the videos and their targets.

    spec      words such as "spec.stride=2"
    textures  number of videos of textures, unless `toy`
    """
    unlabelled, labelled = (10, 40) if toy else (textures, 800)
    return Stores(
        *ablation.make_unlabelled(work, unlabelled, spec),
        *ablation.make_labelled(work, labelled, spec),
    )


if __name__ == "__main__":
    sys.exit(main())
