"""The recipe of each command that takes one, and the command of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from typing import Any

from train.recipes.ablation import AblateConfig
from train.recipes.classification import FinetuneConfig
from train.recipes.pretraining import PretrainConfig
from train.recipes.scoring import EvaluateConfig, FeaturesConfig, ProbeConfig

SCHEMAS: dict[str, type] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "probe": ProbeConfig,
    "features": FeaturesConfig,
    "ablate": AblateConfig,
}


def command_of(config: Any) -> str:
    """The command that this configuration is for."""
    return next(name for name, schema in SCHEMAS.items() if schema is type(config))


def writer_of(keys: Set[str]) -> str | None:
    """The command that wrote a config.yaml with these top-level keys; None where none did.

    Another version of it may have had a few other keys.
    """

    def likeness(name: str) -> float:
        own = {field.name for field in dataclasses.fields(SCHEMAS[name])}
        return len(own & keys) / len(own | keys)

    nearest = max(SCHEMAS, key=likeness)
    return nearest if likeness(nearest) > 0.5 else None
