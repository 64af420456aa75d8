"""`mme ablate`: a grid of pre-training runs, what is measured on each, and one table.

    mme ablate ablate/generated.yaml ablate/table7b.yaml out=runs/7b pretrain.store=out/train \\
        measures.probe.store=out/train measures.probe.val_store=out/val \\
        measures.finetune.store=out/train measures.finetune.val_store=out/val
    mme ablate GRID.yaml … --dry-run

A grid names variants of a pre-training recipe, seeds, and measures: probes and fine-tunings. Each
cell is one `mme pretrain`, `mme probe` or `mme finetune` with a folder of its own, which holds its
command and output (cell.log), so any cell can be run again by hand. The same command resumes a grid
that was stopped: finished cells are kept, and pre-training goes on from its last checkpoint.

With tune.lrs, the first seed of each variant is pre-trained at each learning rate. A probe chooses
among them on the training videos that it holds out. All seeds then use the chosen rate.

OUT then holds table.md and table.csv (mean and spread), runs.csv (every number of every cell) and a
picture for each measure. Ctrl-C and SIGTERM let the running cells save, and stop with exit status
75; a second Ctrl-C ends them at once. A failed cell is named, the others go on, and the exit status
is 1.
"""

from __future__ import annotations

import itertools
import shlex
import sys
from pathlib import Path

import torch

from mme_core.cores import usable_cores
from mme_core.terminal import plain, plain_lines
from train.ablation.cells import Chain, all_chains, check_cells, tuning_chains
from train.ablation.plots import draw
from train.ablation.results import choose_rates, collect
from train.ablation.runner import Runner, slots
from train.ablation.tables import RUNS, TABLE, markdown, write_csv, write_runs
from train.engine import folder
from train.engine.distributed import Ranks
from train.engine.signals import STOPPED, StopRequest
from train.recipes import loading
from train.recipes.ablation import AblateConfig, check_grid


def main(argv: list[str]) -> int:
    pairs = itertools.pairwise(["", *argv])
    words = [f"--config={word}" if _is_grid(word, before) else word for before, word in pairs]
    flags_help = {"dry-run": "print the plan, and run nothing"}
    config, _, flags = loading.load_given(AblateConfig, words, "mme ablate", __doc__, flags_help)
    check_grid(config)
    check_cells(config)
    folder.check_command(config)
    if "dry-run" in flags:
        _show_plan(config)
        return 0
    gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
    runner = Runner(slots(config.device, config.jobs, gpus, usable_cores()), _say)
    alone = Ranks(0, 1, torch.device("cpu"))
    with folder.lock(Path(config.out), alone, _say), StopRequest() as stop:
        folder.write_config(config)
        tuning = tuning_chains(config)
        if not runner.run(tuning, stop):
            return STOPPED
        rates = choose_rates(config, tuning)
        chains = [c for c in all_chains(config, rates) if _has_rate(config, c)]
        finished = runner.run(chains, stop)
    _report(config, tuning, chains, rates)
    if not finished:
        return STOPPED
    return 1 if runner.failed else 0


def _is_grid(word: str, before: str) -> bool:
    """Whether a word is a grid that stands without --config."""
    named = before == "--config" or word.startswith("-") or "=" in word
    return word.endswith((".yaml", ".yml")) and not named


def _has_rate(config: AblateConfig, chain: Chain) -> bool:
    """False for a variant whose learning rate was to be tuned, where all these runs failed."""
    pretrained = config.variants[chain.variant] is not None
    return chain.lr is not None or not (config.tune.lrs and pretrained)


def _report(
    config: AblateConfig, tuning: list[Chain], chains: list[Chain], rates: dict[str, float]
) -> None:
    numbers = collect(chains)
    if not numbers:
        return
    out = Path(config.out)
    known = {number.folder for number in numbers}
    rest = [number for number in collect(tuning) if number.folder not in known]
    write_runs(out / RUNS, [*numbers, *rest])
    write_csv(out / f"{TABLE}.csv", config, numbers)
    text = markdown(config, numbers, rates)
    (out / f"{TABLE}.md").write_text(text)
    pictures = draw(out, config, numbers)
    print(plain_lines(text))
    _say(
        f"written to {out}: {TABLE}.md, {TABLE}.csv, {RUNS}, {', '.join(p.name for p in pictures)}"
    )


def _show_plan(config: AblateConfig) -> None:
    """Prints the command of each cell; with tune.lrs, those of the first seed alone."""
    chains = tuning_chains(config) or all_chains(config, {})
    for chain in chains:
        for cell in chain.cells:
            print(plain(f"mme {shlex.join(cell.words)}"))


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr, flush=True)
