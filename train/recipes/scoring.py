"""The keys of the recipes of probes, evaluations and features."""

from __future__ import annotations

from dataclasses import dataclass, field

from mme_core.errors import UsageError
from mme_core.transformer import SIZES
from train.recipes import shared
from train.recipes.classification import (
    HeldOutDataConfig,
    LabelledDataConfig,
    SplitDataConfig,
    ViewConfig,
)
from train.recipes.fields import MISSING, number, setting
from train.recipes.pretraining import ModelConfig

PROBES = ("linear", "attentive", "knn", "temporal")
USUAL_PROBES = PROBES[:3]
_INIT = 'weights: a run\'s folder or a file; "none": random weights of model.*'


def _one_view() -> ViewConfig:
    return ViewConfig(clips=1, crops=1)


@dataclass
class ProbeConfig:
    init: str = setting(MISSING, _INIT)
    out: str = setting(MISSING, "folder of the results")
    store: str | None = setting(None, "store of the training videos: a path or URL")
    val_store: str | None = setting(None, "store of the test videos")
    seed: int = shared.seed()
    device: str = shared.device()
    precision: str = shared.precision()
    probes: list[str] = setting(
        list(USUAL_PROBES),
        "the probes to run; temporal: linear on each tubelet's mean",
        names=PROBES,
        not_empty=True,
    )
    baselines: bool = setting(True, "measure random weights and still frames as well")
    lrs: list[float] = setting(
        [5e-3, 3e-3, 1e-3, 3e-4, 1e-4], "learning rates to choose from", above=0, not_empty=True
    )
    weight_decays: list[float] = setting(
        [0.01, 0.1, 0.4, 0.8], "weight decays to choose from", at_least=0, not_empty=True
    )
    neighbours: list[int] = setting(
        [1, 5, 10, 20], "numbers of neighbours of kNN to choose from", at_least=1, not_empty=True
    )
    epochs: int = number(50, "passes over the training videos", at_least=1)
    batch_size: int = number(256, "videos in a step of a probe", at_least=2)
    attention_heads: int = number(4, "heads of the attentive probe", at_least=1)
    choice_share: float = number(
        0.2,
        "share of the training videos used to choose rate, decay and neighbours",
        above=0,
        below=1,
    )
    shots: list[int] = setting(
        [], "also train the linear probe on this many videos of each class", at_least=1
    )
    shot_draws: int = number(5, "number of times these videos are drawn", at_least=1)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: SplitDataConfig = field(default_factory=SplitDataConfig)
    view: ViewConfig = field(default_factory=_one_view)


@dataclass
class EvaluateConfig:
    init: str = setting(MISSING, "a fine-tuned classifier: a run's folder or a file")
    out: str = setting(MISSING, "folder of the results")
    val_store: str | None = setting(None, "store of the test videos: a path or URL")
    device: str = shared.device()
    precision: str = shared.precision()
    data: HeldOutDataConfig = field(default_factory=HeldOutDataConfig)
    eval: ViewConfig = field(default_factory=ViewConfig)


@dataclass
class FeaturesConfig:
    init: str = setting(MISSING, _INIT)
    out: str = setting(MISSING, "NAME.zarr or NAME.npz")
    store: str | None = setting(None, "store of the videos: a path or URL")
    split: str | None = setting(None, "split of data.dataset to read")
    seed: int = shared.seed()
    device: str = shared.device()
    precision: str = shared.precision()
    model: ModelConfig = field(default_factory=ModelConfig)
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    view: ViewConfig = field(default_factory=_one_view)


def check_heads(config: ProbeConfig) -> None:
    """Raises UsageError where the attentive probe's heads do not divide the encoder's width."""
    width = SIZES[config.model.size][0]
    if "attentive" in config.probes and width % config.attention_heads:
        raise UsageError(
            f"attention_heads={config.attention_heads} must divide the encoder's width of {width}"
        )
