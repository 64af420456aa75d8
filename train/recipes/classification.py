"""What a fine-tuning recipe may say: the dataclasses of `train.recipes.pretraining`, extended."""

from __future__ import annotations

from dataclasses import dataclass, field

from mme_core.errors import UsageError
from train.data.augment import rand_augment
from train.recipes.pretraining import CheckpointConfig, LogConfig, ModelConfig, OptimConfig


@dataclass
class LabelledDataConfig:
    dataset: str | None = None  # video files of this data set, instead of store and val_store
    root: str | None = None  # its folder or list; with a store and frames=video: of the video files
    val_root: str | None = None  # where the held-out videos have another folder or list
    train_split: str | None = "train"
    val_split: str | None = "val"
    frames: str = "store"  # of a store: "store" its JPEG frames, "video" the files it was made from
    batch_size: int = 8  # clips per process and micro-batch, crops counted
    workers: int = 8
    sampling: str = "dense"  # "dense": a span at the stride; "segment": spread over the video
    stride: int | None = None  # raw frames between two of a clip; None: the store's, of files 4
    crops: int = 2  # augmented clips per decoded video (repeated augmentation)
    still: bool = False  # shortcut check: each clip's middle frame, repeated


@dataclass
class AugmentConfig:
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # area of the random crop
    flip: bool = True  # never where left and right are classes
    rand_augment: str | None = "rand-m7-n4-mstd0.5-inc1"
    erase: float = 0.25  # probability of random erasing
    mixup: float = 0.8
    cutmix: float = 1.0
    smoothing: float = 0.1


@dataclass
class ClassifierConfig(ModelConfig):
    drop_path: float = 0.1
    fc_dropout: float = 0.0


@dataclass
class FinetuneOptimConfig(OptimConfig):
    """lr is for 256 videos a step: it is scaled by their number, crops of one not counted."""

    lr: float = 1e-3
    epochs: int = 75
    warmup_epochs: float = 5
    min_lr: float = 1e-6
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    layer_decay: float = 0.75


@dataclass
class ViewConfig:
    clips: int = 5  # views of a test video = clips × crops
    crops: int = 3
    batch: int = 16  # views per forward pass, at least those of one video


@dataclass
class FinetuneEvalConfig(ViewConfig):
    every: int = 1  # epochs between evaluations with one view; 0: only at the end, with all


@dataclass
class FinetuneConfig:
    out: str = "???"
    init: str = "???"  # weights to start from (see `mme convert`), or "none" for random ones
    store: str | None = None
    val_store: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    resume: str = "auto"
    nonfinite_budget: int = 10  # steps that may be skipped for a loss that is not finite
    ema: float | None = None  # decay of a moving average of the weights, which is then evaluated
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    eval: FinetuneEvalConfig = field(default_factory=FinetuneEvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


def check(config: FinetuneConfig) -> None:
    """Raises UsageError for values that contradict each other."""
    if config.augment.rand_augment:
        rand_augment(config.augment.rand_augment)
    low, high = (*config.augment.scale, 0, 0)[:2]
    if len(config.augment.scale) != 2 or not 0 < low <= high <= 1:
        raise UsageError(f"augment.scale={config.augment.scale} must be two areas in 0 … 1")
    if config.data.crops < 1 or config.data.batch_size % config.data.crops:
        raise UsageError(
            f"data.crops={config.data.crops} must divide data.batch_size={config.data.batch_size}"
        )
