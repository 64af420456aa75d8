"""What the recipes of probes, evaluations and features may say."""

from __future__ import annotations

from dataclasses import dataclass, field

from mme_core.errors import UsageError
from mme_core.model import SIZES
from mme_core.weights.load import Weights, clip_arguments
from train.recipes.classification import LabelledDataConfig, ViewConfig
from train.recipes.pretraining import ModelConfig


@dataclass
class ProbeConfig:
    init: str = "???"  # weights (see `mme convert`), or "none" for random ones of model.* alone
    out: str = "???"
    store: str | None = None
    val_store: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    probes: list[str] = field(default_factory=lambda: list(KINDS))
    baselines: bool = True  # random weights and still frames beside
    lrs: list[float] = field(default_factory=lambda: [5e-3, 3e-3, 1e-3, 3e-4, 1e-4])
    weight_decays: list[float] = field(default_factory=lambda: [0.01, 0.1, 0.4, 0.8])
    neighbours: list[int] = field(default_factory=lambda: [1, 5, 10, 20])
    epochs: int = 50
    batch_size: int = 256
    attention_heads: int = 4
    choice_share: float = 0.2  # of the training videos, to choose lr, weight decay and k
    shots: list[int] = field(default_factory=list)  # linear probe on so many videos of each class
    shot_draws: int = 5
    model: ModelConfig = field(default_factory=ModelConfig)
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    view: ViewConfig = field(default_factory=lambda: ViewConfig(clips=1, crops=1))


KINDS = ("linear", "attentive", "knn")


@dataclass
class EvaluateConfig:
    init: str = "???"  # a fine-tuned classifier: a run's folder, or a file
    out: str = "???"
    val_store: str | None = None
    device: str = "auto"
    precision: str = "auto"
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    eval: ViewConfig = field(default_factory=ViewConfig)


@dataclass
class FeaturesConfig:
    init: str = "???"  # weights (see `mme convert`), or "none" for random ones of model.*
    out: str = "???"  # NAME.zarr or NAME.npz
    store: str | None = None
    split: str | None = None  # of data.dataset
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    view: ViewConfig = field(default_factory=lambda: ViewConfig(clips=1, crops=1))


def check_probe(config: ProbeConfig) -> None:
    for kind in config.probes:
        if kind not in KINDS:
            raise UsageError(f"probes: '{kind}' is not one of {', '.join(KINDS)}")
    for key in ("probes", "lrs", "weight_decays", "neighbours"):
        if not getattr(config, key):
            raise UsageError(f"{key}=[] must name one at least")
    if not 0 < config.choice_share < 1:
        raise UsageError(f"choice_share={config.choice_share} must be between 0 and 1")


def check_heads(config: ProbeConfig, model: ModelConfig) -> None:
    width = SIZES[model.size][0]
    if "attentive" in config.probes and width % config.attention_heads:
        raise UsageError(
            f"attention_heads={config.attention_heads} must divide the encoder's width of {width}"
        )


def architecture(weights: Weights) -> ModelConfig:
    """The model that a file of weights is for."""
    return ModelConfig(size=weights.size, **clip_arguments(weights))
