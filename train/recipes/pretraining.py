"""What a pre-training recipe may say: dataclasses and their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DataConfig:
    batch_size: int = 64  # clips per process and micro-batch, crops counted
    workers: int = 8  # loader processes per training process, at most a core each; 0: none
    frames: str = "store"  # "store": its JPEG frames; "video": decoded from the video files
    root: str | None = None  # folder of the video files, for frames=video
    stride: int | None = None  # raw frames between sampled frames that the store must have
    crops: int = 1  # crops per decoded clip (repeated augmentation); divides batch_size
    crop: str = "random"
    zoom: list[int] = field(default_factory=list)  # [10, 16]: side of the crop, patches; []: off
    flip: bool = True
    shuffle_frames: bool = False  # Figure 3: the clip's frames in random order
    shard_shuffle: bool = False  # shuffle shards, then inside a few: for disks that seek slowly
    stage: str | None = None  # local folder for copies of the shards, made beside the training
    stage_gb: float | None = None  # how much of it; until 5 % of the disk are left where not said


@dataclass
class TargetConfig:
    points: int = 4  # K: the store must have it
    length: int = 6  # L': the first steps of the store's trajectories
    merge: str = "none"  # Table 7c: one trajectory a patch, the mean or the longest


@dataclass
class NormConfig:
    kind: str = "patch"
    floor: float = 0.0  # smallest deviation, canvas pixels; 0: the paper
    camera: bool = False  # displacement less the camera's motion; needs a store that holds it


@dataclass
class MaskConfig:
    kind: str = "tube"
    ratio: float = 0.7


@dataclass
class ModelConfig:
    size: str = "base"
    depth: int | None = None  # encoder blocks, instead of the size's own
    frames: int = 16
    image_size: int = 224
    patch: int = 16


@dataclass
class DecoderConfig:
    kind: str = "joint"
    depth: int = 1
    width: int = 384
    heads: int = 6
    head_layers: int = 1


@dataclass
class LossConfig:
    contents: list[str] = field(
        default_factory=lambda: ["trajectory"]
    )  # names of mme_core.clips.contents
    weights: dict[str, float] = field(default_factory=dict)  # of a content; 1 where not said
    mask_invalid: bool = True


@dataclass
class OptimConfig:
    lr: float = 1.5e-4  # base: the rate used is lr × effective batch / 256
    epochs: int = 800
    steps: int | None = None  # instead of epochs
    warmup_epochs: float = 40
    min_lr: float = 1e-5  # base, as lr: where the cosine ends
    weight_decay: float = 0.05
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    accumulate: int = 1  # micro-batches a step: effective batch = batch_size × processes × this
    clip: float | None = None  # largest norm of the gradient


@dataclass
class CheckpointConfig:
    every: int = 1000  # steps
    keep: int = 2


@dataclass
class LogConfig:
    every: int = 10  # steps
    wandb: bool = False
    project: str = "mme"


@dataclass
class EvalConfig:
    every: int = 20  # epochs; also once at the end
    clips: int = 1024  # held-out clips, at most
    knn: int = 10  # neighbours; 0: off
    knn_videos: int = 2000  # of the training store, at most
    panels: int = 2  # pictures of predicted and true trajectories


@dataclass
class PretrainConfig:
    store: str = "???"
    out: str = "???"
    val_store: str | None = None
    init: str | None = None  # start from the weights of this checkpoint or run; not a resume
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"  # bf16 on CUDA, fp32 on CPU
    compile: bool = False
    resume: str = "auto"  # "force": go on in `out` although the recipe differs from the run's
    nonfinite_budget: int = 10  # steps that may be skipped for a loss that is not finite
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
