"""The cells of a grid: each is one command with a folder of its own.

OUT/VARIANT/seed0/pretrain/         the run of `mme pretrain`
OUT/VARIANT/seed0/MEASURE/          what is measured on it
OUT/VARIANT/seed0-lr0.001/…         the same at each learning rate that is tried
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mme_core.errors import UsageError
from mme_core.keys import dotted
from train.recipes.ablation import PRETRAIN, AblateConfig, section_of
from train.recipes.classification import check_both
from train.recipes.commands import SCHEMAS
from train.recipes.loading import load, read_yaml
from train.recipes.weights import RANDOM


@dataclass(frozen=True)
class Cell:
    """One command.

    words     its name and arguments, which include `out`, the cell's folder
    pretrain  words of the pre-training run that it measures
    """

    folder: Path
    words: tuple[str, ...]
    pretrain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chain:
    """A pre-training run and its measures, which run one after the other.

    lr  optim.lr of pre-training; None: the recipe's
    """

    variant: str
    seed: int
    lr: float | None
    cells: tuple[Cell, ...]

    def measure(self, name: str) -> Path:
        """The folder of one measure."""
        return self.cells[0].folder.parent / name


def chain(
    config: AblateConfig, variant: str, seed: int, lr: float | None, measures: Sequence[str]
) -> Chain:
    """The commands of one variant and seed. Random weights are measured without a run."""
    folder = Path(config.out) / variant / (f"seed{seed}" if lr is None else f"seed{seed}-lr{lr:g}")
    keys = config.variants[variant]
    shared = {"seed": seed, "device": config.device}
    cells, init, model = [], RANDOM, {}
    if keys is None:
        model = _model_keys(config)  # random weights have no recipe of their own
    else:
        run = folder / PRETRAIN
        values = {**dotted(config.pretrain), **dotted(keys)} | (
            {} if lr is None else {"optim.lr": lr}
        )
        cells.append(_cell(PRETRAIN, config.recipes, values | shared, run))
        init = str(run)
    for name in measures:
        values = dict(config.measures[name])
        command, recipes = values.pop("command"), values.pop("recipes", [])
        keys_of_cell = model | dotted(values) | {"init": init} | shared
        cell = _cell(command, recipes, keys_of_cell, folder / name)
        cells.append(replace(cell, pretrain=cells[0].words) if keys is not None else cell)
    return Chain(variant, seed, lr, tuple(cells))


def tuning_chains(config: AblateConfig) -> list[Chain]:
    """The runs at each learning rate, on the first seed, with the measure that chooses."""
    assert config.tune.measure is not None or not config.tune.lrs  # checked with the grid
    return [
        chain(config, variant, config.seeds[0], lr, [config.tune.measure or ""])
        for variant, keys in config.variants.items()
        if keys is not None
        for lr in config.tune.lrs
    ]


def all_chains(config: AblateConfig, chosen: Mapping[str, float]) -> list[Chain]:
    """Every variant and seed with all measures, at the learning rates that were chosen.

    First all variants of one seed, so that a grid that is stopped early can be compared.
    """
    return [
        chain(config, variant, seed, chosen.get(variant), list(config.measures))
        for seed in config.seeds
        for variant in config.variants
    ]


def check_cells(config: AblateConfig) -> None:
    """Raises UsageError where a command of the grid would refuse its recipe.

    Otherwise a wrong key is found only when its cell starts, hours into the grid. Seeds differ in
    nothing else, so the first is enough.
    """
    first = [c for c in all_chains(config, {}) if c.seed == config.seeds[0]]
    for planned in [*tuning_chains(config), *first]:
        for cell in planned.cells:
            try:
                _check_cell(cell)
            except UsageError as error:
                raise UsageError(
                    f"variants.{planned.variant}: `mme {cell.words[0]}` refuses the keys of "
                    f"{cell.folder}: {error}"
                ) from error


def _check_cell(cell: Cell) -> None:
    command, *words = cell.words
    under = f"{section_of(command, cell.folder.name)}."
    config: Any = load(SCHEMAS[command], words, f"mme {command}", "", under)
    if command != PRETRAIN:
        check_both(config.data, config.store, config.val_store, under)


def _model_keys(config: AblateConfig) -> dict[str, Any]:
    """The keys model.* of the pre-training recipe that all variants share."""
    layers = [dotted(read_yaml(recipe)) for recipe in config.recipes] + [dotted(config.pretrain)]
    return {k: v for layer in layers for k, v in layer.items() if k.startswith("model.")}


def _cell(command: str, recipes: Sequence[str], values: Mapping[str, Any], folder: Path) -> Cell:
    words = [f"--config={recipe}" for recipe in recipes]
    words += [f"{key}={_text(value)}" for key, value in values.items()]
    return Cell(folder, (command, *words, f"out={folder}"))


def _text(value: Any) -> str:
    """A value as a word of a command line, which is read as YAML."""
    if isinstance(value, str) and _reads_as_itself(value):
        return value
    return json.dumps(value)


def _reads_as_itself(text: str) -> bool:
    try:
        return yaml.safe_load(text) == text
    except yaml.YAMLError:
        return False
