"""The recipe of each command that takes one."""

from __future__ import annotations

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
