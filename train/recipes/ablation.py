"""The keys of a grid of `mme ablate`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mme_core.errors import UsageError
from mme_core.keys import dotted
from train.recipes import shared
from train.recipes.fields import MISSING, choice, number, setting
from train.recipes.scoring import PROBES, USUAL_PROBES

PRETRAIN = "pretrain"
COMMANDS = ("probe", "finetune")
_OWN = ("seed", "out", "init", "device")  # what the grid sets in every cell


@dataclass
class TuneConfig:
    lrs: list[float] = setting(
        [], "optim.lr of pre-training to choose from, for each variant; []: as its recipe", above=0
    )
    measure: str | None = setting(None, "name of the probe that chooses, on its training videos")
    probe: str = choice("linear", PROBES, "the kind of probe that chooses")


@dataclass
class AblateConfig:
    out: str = setting(MISSING, "folder of all runs and tables")
    seeds: list[int] = setting(
        [0, 1, 2], "seeds of each variant", at_least=0, at_most=shared.LARGEST_SEED, not_empty=True
    )
    device: str = shared.device()
    jobs: int = number(1, "runs at once, on each GPU or on the CPU", at_least=1)
    recipes: list[str] = setting([], "recipes of `mme pretrain`, as --config takes them")
    pretrain: dict[str, Any] = setting({}, "keys of `mme pretrain` that all variants share")
    variants: dict[str, Any] = setting(
        {}, "{name: keys of `mme pretrain`}; null: random weights, no pre-training"
    )
    measures: dict[str, Any] = setting(
        {}, "{name: {command: probe or finetune, recipes: [...], keys of that command}}"
    )
    tune: TuneConfig = field(default_factory=TuneConfig)


def section_of(command: str, measure: str = "NAME") -> str:
    """The key of a grid that holds the keys of a command: of pre-training, or of a measure."""
    return PRETRAIN if command == PRETRAIN else f"measures.{measure}"


def place_of(key: str, users: Collection[str]) -> str:
    """Says where a grid sets a key that the commands `users` have; empty if no cell has it."""
    sections = dict.fromkeys(section_of(name) for name in users if name in (PRETRAIN, *COMMANDS))
    if not sections:
        return ""
    if key in _OWN:
        return f"the grid sets {key} itself"
    return f"{' or '.join(f'{section}.{key}' for section in sections)} sets it"


def check_grid(config: AblateConfig) -> None:
    """Raises UsageError for a grid that has nothing to run, or that contradicts itself."""
    for key, named in (("variants", config.variants), ("measures", config.measures)):
        if not named:
            raise UsageError(f"{key} is empty: the grid must name at least one")
        for name, values in named.items():
            _check_name(key, name)
            if not isinstance(values, Mapping) and (values is not None or key == "measures"):
                raise UsageError(f"{key}.{name}={values} must hold keys, such as {{store: ...}}")
            _check_keys(f"{key}.{name}", values or {})
    _check_keys(PRETRAIN, config.pretrain)
    for name, values in config.measures.items():
        if values.get("command") not in COMMANDS:
            raise UsageError(f"measures.{name}.command must be one of {', '.join(COMMANDS)}")
    if len(set(config.seeds)) < len(config.seeds):
        raise UsageError(f"seeds={config.seeds} names a seed twice")
    if config.tune.lrs:
        _check_tuning(config)


def _check_tuning(config: AblateConfig) -> None:
    lrs = config.tune.lrs
    if len({f"{lr:g}" for lr in lrs}) < len(lrs):  # as in the names of their folders
        raise UsageError(f"tune.lrs={lrs} names a learning rate twice")
    chooser = config.measures.get(config.tune.measure or "")
    if chooser is None or chooser["command"] != "probe":
        names = [name for name, v in config.measures.items() if v["command"] == "probe"]
        raise UsageError(
            f"tune.measure={config.tune.measure} must name a probe of the grid, which chooses "
            "among tune.lrs on its training videos; the probes are "
            f"{', '.join(names) or '(none)'}"
        )
    probes = chooser.get("probes", USUAL_PROBES)
    if config.tune.probe not in probes:
        raise UsageError(
            f"tune.probe={config.tune.probe}, but measures.{config.tune.measure}.probes={probes}"
        )


def _check_keys(where: str, values: Mapping[str, Any]) -> None:
    for key in dotted(values):
        if key in _OWN:
            raise UsageError(f"{where}.{key}: the grid sets {key} itself")


def _check_name(key: str, name: str) -> None:
    if not name or name.startswith(".") or "/" in name or name == PRETRAIN:
        raise UsageError(
            f"{key}.{name}: a folder gets this name: it must not be empty, begin with a dot, "
            f"contain / or be '{PRETRAIN}'"
        )
