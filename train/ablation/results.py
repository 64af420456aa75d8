"""What the cells of a grid found, as numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mme_core.weights.run_folder import PROBE, read_metrics
from train.ablation.cells import Chain
from train.ablation.runner import is_done
from train.recipes.ablation import PRETRAIN, AblateConfig


@dataclass(frozen=True)
class Number:
    """One number of one cell.

    measure  name of the measure, or "pretrain"
    metric   a probe's kind, "5-shot", "top1", or "position / constant": a held-out loss of
             pre-training over that of the best constant
    """

    variant: str
    seed: int
    lr: float | None
    measure: str
    metric: str
    value: float
    folder: Path


def collect(chains: Sequence[Chain]) -> list[Number]:
    """The numbers of all finished cells."""
    found = []
    for chain in chains:
        for cell in chain.cells:
            if not is_done(cell):
                continue
            named = (chain.variant, chain.seed, chain.lr, cell.folder.name)
            found += [Number(*named, key, value, cell.folder) for key, value in _read(cell.folder)]
    return found


def choose_rates(config: AblateConfig, chains: Sequence[Chain]) -> dict[str, float]:
    """{variant: learning rate} with the best accuracy of the probe that chooses.

    That is its best accuracy on the training videos that the probe itself holds out to choose by.
    Of equal ones the first in tune.lrs is taken. Variants without a finished run are left out.
    """
    best: dict[str, tuple[float, float]] = {}
    for chain in chains:
        if chain.lr is None or not all(map(is_done, chain.cells)):
            continue
        accuracy = choice_accuracy(chain.measure(config.tune.measure or ""), config.tune.probe)
        if accuracy > best.get(chain.variant, (-1.0, 0.0))[0]:
            best[chain.variant] = (accuracy, chain.lr)
    return {variant: lr for variant, (_, lr) in best.items()}


def choice_accuracy(folder: Path, kind: str) -> float:
    """Best accuracy of a probe's trials on the training videos held out to choose by."""
    row = json.loads((folder / PROBE).read_text())["rows"][0]
    return max(trial["choice"] for trial in row[kind]["trials"])


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (nan for one value)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def _read(folder: Path) -> Iterator[tuple[str, float]]:
    if (folder / PROBE).exists():
        yield from _probe(folder / PROBE)
    elif folder.name == PRETRAIN:
        yield from _held_out(folder)
    else:
        yield "top1", 100 * read_metrics(folder)[-1]["final_top1"]


def _probe(report: Path) -> Iterator[tuple[str, float]]:
    """Accuracies in percent; with baselines, each row of the report is named."""
    rows = json.loads(report.read_text())["rows"]
    for number, row in enumerate(rows):
        name = "" if number == 0 else f", {row['weights']}, {row['clip']}"
        for metric, found in row.items():
            if isinstance(found, dict):
                yield f"{metric}{name}", 100 * found["accuracy"]
            elif isinstance(found, list):
                yield f"{metric}{name}", 100 * float(np.mean(found))


def _held_out(folder: Path) -> Iterator[tuple[str, float]]:
    """Losses of the last evaluation, each over that of the best constant."""
    rows = [row for row in read_metrics(folder) if "val_loss" in row]
    for key in rows[-1] if rows else ():
        content = key.removeprefix("constant_")
        if content not in (key, "loss") and rows[-1][key]:  # 0: no held-out target is valid
            yield f"{content} / constant", rows[-1][f"val_{content}"] / rows[-1][key]
