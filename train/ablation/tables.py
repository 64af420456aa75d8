"""The tables of a grid: every number as csv, means and spreads as markdown."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mme_core.keys import dotted
from train.ablation.results import Number, spread
from train.recipes.ablation import AblateConfig

RUNS, TABLE = "runs.csv", "table"
# Variants that change these are not compared at equal encoder, clips seen and augmentation.
_EQUAL = ("model.", "data.", "optim.steps", "optim.epochs", "optim.accumulate")
Key = tuple[str, str]  # measure and metric


def write_runs(path: Path, numbers: Sequence[Number]) -> None:
    """Every number of every finished cell, tuning included."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "seed", "lr", "measure", "metric", "value", "folder"])
        for n in numbers:
            lr = "" if n.lr is None else f"{n.lr:g}"
            row = [n.variant, n.seed, lr, n.measure, n.metric, f"{n.value:.4f}", n.folder]
            writer.writerow(row)


def columns(numbers: Sequence[Number]) -> list[Key]:
    """(measure, metric) in the order in which they were found."""
    return list(dict.fromkeys((n.measure, n.metric) for n in numbers))


def cells(numbers: Sequence[Number]) -> dict[tuple[str, Key], list[float]]:
    """{(variant, (measure, metric)): a value for each seed}."""
    found: dict[tuple[str, Key], list[float]] = {}
    for n in numbers:
        found.setdefault((n.variant, (n.measure, n.metric)), []).append(n.value)
    return found


def write_csv(path: Path, config: AblateConfig, numbers: Sequence[Number]) -> None:
    """A row for each variant: mean, deviation and number of seeds of each column."""
    found, keys = cells(numbers), columns(numbers)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        heads = [f"{m} {k}" for m, k in keys]
        parts = [f"{head} {part}" for head in heads for part in ("mean", "deviation", "seeds")]
        writer.writerow(["variant", *parts])
        for variant in config.variants:
            row: list[object] = [variant]
            for key in keys:
                values = found.get((variant, key), [])
                mean, deviation = spread(values) if values else (math.nan, math.nan)
                row += [f"{mean:.4f}", f"{deviation:.4f}", len(values)]
            writer.writerow(row)


def markdown(config: AblateConfig, numbers: Sequence[Number], rates: Mapping[str, float]) -> str:
    """A table for each measure: mean ± deviation over the seeds. Then what each variant changes."""
    lines: list[str] = []
    for measure in dict.fromkeys(n.measure for n in numbers):
        lines += [f"**{measure}**", "", *_table(config, numbers, measure), ""]
    seeds = f"{len(config.seeds)} seeds" if len(config.seeds) > 1 else "one seed"
    lines += [f"Mean ± sample deviation; {seeds}. Accuracies are in percent.", ""]
    for name in config.variants:
        rate = f"; learning rate {rates[name]:g}" if name in rates else ""
        lines.append(f"* {name}: {_changes(config, name)}{rate}")
    if not all(_equal(config, name) for name in config.variants):
        lines += ["", "\\* other encoder, clips or augmentation than the grid's"]
    return "\n".join(lines) + "\n"


def _table(config: AblateConfig, numbers: Sequence[Number], measure: str) -> Iterator[str]:
    found = cells(numbers)
    keys = [key for key in columns(numbers) if key[0] == measure]
    heads = ["variant", *(metric for _, metric in keys)]
    yield from (_row(heads), _row(["---"] * len(heads)))
    for variant in config.variants:
        name = variant if _equal(config, variant) else f"{variant} \\*"
        yield _row([name, *(_cell(found.get((variant, key), []), key) for key in keys)])


def _changes(config: AblateConfig, variant: str) -> str:
    keys = config.variants[variant]
    if keys is None:
        return "random weights"
    return (
        ", ".join(f"`{key}={value}`" for key, value in dotted(keys).items()) or "as the grid says"
    )


def _equal(config: AblateConfig, variant: str) -> bool:
    """Whether a variant has the grid's encoder, clips and augmentation."""
    shared = dotted(config.pretrain)
    changed = {
        k: v for k, v in dotted(config.variants[variant] or {}).items() if shared.get(k) != v
    }
    return not any(key.startswith(_EQUAL) for key in changed)


def _cell(values: Sequence[float], key: Key) -> str:
    if not values:
        return "–"
    digits = 3 if key[1].endswith("constant") else 1
    mean, deviation = spread(values)
    if math.isnan(deviation):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
