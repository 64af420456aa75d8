"""The keys of a fine-tuning recipe: the dataclasses of `train.recipes.pretraining`, extended."""

from __future__ import annotations

from dataclasses import dataclass, field

from mme_core.clips.requirements import SOURCES
from mme_core.clips.views import SAMPLINGS
from mme_core.datasets import DATASETS
from mme_core.errors import UsageError
from train.recipes import shared
from train.recipes.fields import MISSING, choice, number, setting
from train.recipes.pretraining import (
    CheckpointConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
)

PLACES = ("auto", "workers", "device")


@dataclass
class LabelledDataConfig:
    dataset: str | None = choice(
        None, DATASETS, "read the video files of this data set, instead of those of a store"
    )
    root: str | None = setting(
        None, "folder or list of data.dataset; with data.frames=video, of the store's video files"
    )
    frames: str = choice(
        "store", SOURCES, "with a store: read its frames, or the video files it was made from"
    )
    batch_size: int = number(
        16, "views per process and forward pass; those of one video stay together", at_least=1
    )
    workers: int = number(8, "loader processes per training process; 0: none", at_least=0)
    sampling: str | None = choice(
        None,
        SAMPLINGS,
        "dense: a span at the stride; segment: spread over the video; by default that of the "
        "fine-tuned weights, or dense",
    )
    stride: int | None = number(
        None, "frame stride of a clip; by default the store's, or 4 for video files", at_least=1
    )
    still: bool = setting(False, "show each clip's middle frame only, repeated (shortcut check)")


@dataclass
class HeldOutDataConfig(LabelledDataConfig):
    val_root: str | None = setting(
        None, "folder or list of the held-out videos; by default data.root"
    )
    val_split: str | None = setting("val", "split of data.dataset to evaluate on")


@dataclass
class SplitDataConfig(HeldOutDataConfig):
    train_split: str | None = setting("train", "split of data.dataset to train on")


@dataclass
class FinetuneDataConfig(SplitDataConfig):
    batch_size: int = number(8, "clips per process and micro-batch, crops included", at_least=1)
    crops: int = number(2, "augmented clips per decoded video (repeated augmentation)", at_least=1)
    bad_budget: int = shared.bad_budget()


@dataclass
class AugmentConfig:
    scale: list[float] = setting(
        [0.08, 1.0], "smallest and largest area of the random crop", count=2, above=0, at_most=1
    )
    flip: bool = setting(True, "mirror half of the clips; never where left and right are classes")
    rand_augment: str | None = setting("rand-m7-n4-mstd0.5-inc1", "timm's RandAugment; null: off")
    place: str = choice(
        "auto",
        PLACES,
        "where flip and RandAugment run; auto: on the device if it is CUDA, else in the workers",
    )
    erase: float = number(0.25, "probability of random erasing", at_least=0, at_most=1)
    mixup: float = number(0.8, "alpha of mixup; 0: off", at_least=0)
    cutmix: float = number(1.0, "alpha of CutMix; 0: off", at_least=0)
    smoothing: float = number(0.1, "label smoothing", at_least=0, at_most=1)


@dataclass
class ClassifierConfig(ModelConfig):
    drop_path: float = number(0.1, "stochastic depth of the last block", at_least=0, at_most=1)
    fc_dropout: float = number(0.0, "dropout before the head", at_least=0, at_most=1)


@dataclass
class FinetuneOptimConfig(OptimConfig):
    lr: float = number(
        1e-3, "learning rate; the rate used is lr × videos in a step / 256", at_least=0
    )
    epochs: int = number(75, "passes over the training videos", at_least=1)
    warmup_epochs: float = number(5, "epochs in which the learning rate rises from 0", at_least=0)
    min_lr: float = number(1e-6, "learning rate at the end of the cosine, scaled as lr", at_least=0)
    betas: list[float] = setting([0.9, 0.999], "betas of AdamW", count=2, at_least=0, below=1)
    layer_decay: float = number(
        0.75, "learning rate of a block, as a share of the next block's", at_least=0, at_most=1
    )


@dataclass
class ViewConfig:
    clips: int = number(
        5, "clips of each video, spread over it; a video has clips × crops views", at_least=1
    )
    crops: int = number(3, "crops of each clip", at_least=1)


@dataclass
class FinetuneEvalConfig(ViewConfig):
    batch: int = number(
        16, "views per process and forward pass; those of one video stay together", at_least=1
    )
    every: int = number(
        1, "epochs between evaluations with one view; 0: none before the end", at_least=0
    )


@dataclass
class FinetuneConfig:
    out: str = setting(MISSING, "folder of the run")
    init: str = setting(
        MISSING, 'weights to start from: a run\'s folder or a file; "none": random ones'
    )
    store: str | None = setting(None, "store of the training videos: a path or URL")
    val_store: str | None = setting(None, "store of the held-out videos")
    seed: int = shared.seed()
    device: str = shared.device()
    precision: str = shared.precision()
    compile: bool | str = shared.compiled()
    profile: int = shared.profile()
    resume: str = shared.resume()
    nonfinite_budget: int = shared.nonfinite_budget()
    ema: float | None = number(
        None,
        "evaluate and save a moving average of the weights, with this decay",
        at_least=0,
        at_most=1,
    )
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    eval: FinetuneEvalConfig = field(default_factory=FinetuneEvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


def check_videos(data: LabelledDataConfig, store: str | None, under: str = "") -> None:
    """Raises UsageError unless the labelled videos are those of a store or of data.dataset.

    under  what a key begins with where the user sets it: "measures.probe." in a grid
    """
    if (store is None) == (data.dataset is None):
        raise UsageError(
            f"give the labelled videos either as {under}store=… (and {under}val_store=…) or as "
            f"{under}data.dataset=… {under}data.root=…"
        )


def check_both(
    data: SplitDataConfig, store: str | None, val_store: str | None, under: str = ""
) -> None:
    """Like `check_videos`, for the training videos and the held-out videos of a run."""
    if store is not None and val_store is None:
        raise UsageError(f"{under}val_store is not set: the store of the held-out videos")
    for url in (store, val_store):
        check_videos(data, url, under)
