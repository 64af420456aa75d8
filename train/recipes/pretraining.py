"""The keys of a pre-training recipe: dataclasses with defaults, help and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from mme_core.clips.contents import CONTENTS, GROUPS, OF_STORED_STRIDE
from mme_core.clips.requirements import CROPS, SOURCES
from mme_core.clips.settings import MERGES, NORMS
from mme_core.errors import UsageError
from mme_core.masking import MASKS
from mme_core.model import DECODERS, HEAD_LAYERS
from mme_core.transformer import SIZES
from train.recipes import shared
from train.recipes.fields import MISSING, choice, number, setting

RESIDENT = ("auto", True, False)
RESIDUALS = {"fp32": None, "bf16": torch.bfloat16}  # None: what autocast leaves it in


@dataclass
class DataConfig:
    batch_size: int = number(64, "clips per process and micro-batch, crops included", at_least=1)
    workers: int = number(
        8, "loader processes per training process, at most one per core; 0: none", at_least=0
    )
    frames: str = choice("store", SOURCES, "where frames come from: the store, or the video files")
    root: str | None = setting(None, "folder of the video files, for data.frames=video")
    stride: int | None = number(
        None, "frame stride, which must be that of the store; by default the store's", at_least=1
    )
    crops: int = number(
        1, "crops per decoded clip (repeated augmentation); divides data.batch_size", at_least=1
    )
    crop: str = choice("random", CROPS, "where the crop is taken")
    zoom: list[int] = setting(
        [], "smallest and largest side of the crop in patches, as [10, 16]; []: off", at_least=1
    )
    flip: bool = setting(True, "mirror half of the clips")
    speeds: list[int] = setting(
        [], "frame strides to draw from, as multiples of the store's; []: its own", at_least=1
    )
    resident: bool | str = choice(
        "auto",
        RESIDENT,
        "keep the store on the device; auto: if it takes a small share of its memory",
    )
    mix: list[float] = setting(
        [], "weight of each of several stores in an epoch; []: by their number of videos", above=0
    )
    bad_budget: int = shared.bad_budget()
    shuffle_frames: bool = setting(False, "put the clip's frames in random order (Figure 3)")
    shard_shuffle: bool = setting(
        False, "shuffle the shards, then the videos of a few: for disks that seek slowly"
    )
    stage: str | None = setting(None, "local folder that shards are copied to while training")
    stage_gb: float | None = number(
        None, "largest size of that folder, GB; by default 5 % of the disk stay free", above=0
    )


@dataclass
class TargetConfig:
    points: int = number(4, "K, tracked points of a patch, which the store must have", at_least=1)
    length: int = number(6, "L', the first steps of the store's trajectories", at_least=1)
    merge: str = choice(
        "none", MERGES, "one trajectory for each patch (Table 7c): the mean or the longest"
    )


@dataclass
class NormConfig:
    kind: str = choice("patch", NORMS, "what the targets are normalised over")
    floor: float = number(
        0.0, "smallest number to divide by, canvas pixels; 0, as in the paper: off", at_least=0
    )
    camera: bool = setting(False, "subtract the camera's motion; the store must hold it")


@dataclass
class MaskConfig:
    kind: str = choice("tube", MASKS, "which tokens are hidden")
    ratio: float = number(0.7, "share of the patches that are hidden", at_least=0, at_most=1)


@dataclass
class ModelConfig:
    size: str = choice("base", SIZES, "width, depth and heads of the encoder")
    depth: int | None = number(None, "encoder blocks; by default the size's own", at_least=1)
    frames: int = number(16, "frames of a clip, an even number", at_least=2)
    image_size: int = number(224, "side of a clip, pixels", at_least=1)
    patch: int = number(16, "side of a patch, pixels", at_least=1)
    residual: str = choice(
        "fp32", RESIDUALS, "numbers between blocks; bf16 is faster and needs precision bf16"
    )


@dataclass
class DecoderConfig:
    kind: str = choice("joint", DECODERS, "one decoder for all contents, or one for each")
    depth: int = number(1, "blocks", at_least=1)
    width: int = number(384, "channels, a multiple of decoder.heads", at_least=1)
    heads: int = number(6, "attention heads", at_least=1)
    head_layers: int = choice(1, HEAD_LAYERS, "layers of the head of each content")


@dataclass
class LossConfig:
    contents: list[str] = setting(
        ["trajectory"], "what is reconstructed", names=(*GROUPS, *CONTENTS), not_empty=True
    )
    weights: dict[str, float] = setting(
        {}, "weight of a content's loss, as loss.weights.shape=2; by default 1", at_least=0
    )
    mask_invalid: bool = setting(True, "leave invalid trajectories out")
    visible: float = number(
        0.0, "factor of a loss on visible tokens, weighted by 1 / √distance to hidden", at_least=0
    )
    depths: list[int] = setting(
        [], "encoder blocks that the decoder also predicts from, as [4, 8]; []: none", at_least=1
    )


@dataclass
class OptimConfig:
    lr: float = number(
        1.5e-4, "learning rate; the rate used is lr × effective batch / 256", at_least=0
    )
    epochs: int = number(800, "passes over the training videos", at_least=1)
    steps: int | None = number(None, "optimiser steps, instead of epochs", at_least=1)
    warmup_epochs: float = number(40, "epochs in which the learning rate rises from 0", at_least=0)
    min_lr: float = number(1e-5, "learning rate at the end of the cosine, scaled as lr", at_least=0)
    weight_decay: float = number(0.05, "weight decay of AdamW, for matrices only", at_least=0)
    betas: list[float] = setting([0.9, 0.95], "betas of AdamW", count=2, at_least=0, below=1)
    accumulate: int = number(
        1, "micro-batches a step: effective batch = batch_size × processes × this", at_least=1
    )
    clip: float | None = number(None, "largest norm of the gradient; null: no clipping", above=0)


@dataclass
class CheckpointConfig:
    every: int = number(1000, "steps between checkpoints", at_least=1)
    keep: int = number(2, "checkpoints that are kept", at_least=1)


@dataclass
class LogConfig:
    every: int = number(10, "steps between rows of metrics.jsonl", at_least=1)
    wandb: bool = setting(False, "log to Weights & Biases as well")
    project: str = setting("mme", "project at Weights & Biases")
    tensorboard: bool = setting(False, "write event files for TensorBoard as well")


@dataclass
class EvalConfig:
    every: int = number(20, "epochs between evaluations; 0: only at the end", at_least=0)
    clips: int = number(
        1024, "largest number of held-out clips in all, one of each video", at_least=1
    )
    knn: int = number(10, "neighbours of the kNN accuracy; 0: off", at_least=0)
    knn_videos: int = number(
        2000, "largest number of training videos for the kNN accuracy", at_least=1
    )
    panels: int = number(
        2, "number of pictures of predicted and true trajectories; 0: none", at_least=0
    )


@dataclass
class PretrainConfig:
    store: Any = setting(
        MISSING, "store of the training videos: a path or URL, or several as [a, b, c]"
    )
    out: str = setting(MISSING, "folder of the run")
    val_store: str | None = setting(None, "store of the held-out videos")
    init: str | None = setting(
        None, "weights to start from: a run's folder, a checkpoint or a file; not a resume"
    )
    seed: int = shared.seed()
    device: str = shared.device()
    precision: str = shared.precision()
    compile: bool | str = shared.compiled()
    profile: int = shared.profile()
    resume: str = shared.resume()
    nonfinite_budget: int = shared.nonfinite_budget()
    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def check_speeds(config: PretrainConfig) -> None:
    """Raises UsageError for contents of the store's own stride if data.speeds draws others."""
    speeds = config.data.speeds
    for named in config.loss.contents:
        bound = [name for name in GROUPS.get(named, (named,)) if name in OF_STORED_STRIDE]
        if bound and set(speeds) - {1}:
            raise UsageError(
                f"loss.contents={named} is computed for frames at the store's own stride, and "
                f"data.speeds={speeds} draws others: use data.speeds=[], or other contents"
            )


def check_stores(config: PretrainConfig) -> None:
    """Raises UsageError unless `store` names one store or several, and data.mix fits them."""
    named = config.store
    several = isinstance(named, list) and named and all(isinstance(url, str) for url in named)
    if not (several or isinstance(named, str)):
        raise UsageError(f"store={named} must be a path or URL, or several as [a, b, c]")
    count = len(named) if several else 1
    if config.data.mix and (len(config.data.mix) != count or count == 1):
        raise UsageError(
            f"data.mix={config.data.mix} must have one weight for each of several stores, and "
            f"store names {count}"
        )
    if config.data.mix and config.data.shard_shuffle:
        raise UsageError("data.mix shuffles all videos: leave data.shard_shuffle out")
