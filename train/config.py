"""What a recipe may say: dataclasses and their defaults, read from YAML files and `key=value`.

    config = load(PretrainConfig, ["--config", "tiny.yaml", "store=out/demo", "out=runs/a"], …)

Files are merged in their order, words last. A key that no dataclass knows is an error that names
the nearest one; so is a value of the wrong type or outside its choices.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mme_core.errors import UsageError
from train.views import SAMPLINGS

RECIPES = Path(__file__).parent / "configs"
Config = TypeVar("Config")

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "resume": ("auto", "force"),
    "data.frames": ("store", "video"),
    "data.crop": ("random", "center"),
    "data.sampling": SAMPLINGS,
    "norm.kind": ("patch", "step", "length", "none"),
    "mask.kind": ("tube", "cube", "random", "motion"),
    "target.merge": ("none", "mean", "max"),
    "decoder.kind": ("joint", "separate"),
    "model.size": ("tiny", "small", "base", "large"),
}

AT_LEAST = {
    "seed": 0,
    "data.batch_size": 1,
    "data.workers": 0,
    "data.crops": 1,
    "model.depth": 1,
    "decoder.depth": 1,
    "decoder.width": 1,
    "decoder.heads": 1,
    "optim.epochs": 1,
    "optim.steps": 1,
    "optim.lr": 0,
    "optim.min_lr": 0,
    "optim.weight_decay": 0,
    "optim.warmup_epochs": 0,
    "optim.accumulate": 1,
    "checkpoint.every": 1,
    "checkpoint.keep": 1,
    "log.every": 1,
    "eval.every": 0,
    "eval.clips": 1,
    "eval.crops": 1,
    "eval.batch": 1,
    "view.clips": 1,
    "view.crops": 1,
    "view.batch": 1,
    "augment.mixup": 0,
    "augment.cutmix": 0,
    "epochs": 1,
    "batch_size": 2,
    "attention_heads": 1,
    "neighbours": 1,
    "shots": 1,
    "shot_draws": 1,
    "eval.knn": 0,
    "eval.knn_videos": 1,
    "eval.panels": 0,
    "nonfinite_budget": 0,
}
WITHIN_1 = (
    "augment.erase",
    "augment.smoothing",
    "model.drop_path",
    "model.fc_dropout",
    "optim.layer_decay",
    "ema",
)
ABOVE_ZERO = ("data.stage_gb", "optim.clip")


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
    contents: list[str] = field(default_factory=lambda: ["trajectory"])  # names of train.contents
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


def load(schema: type[Config], argv: Sequence[str], prog: str, description: str) -> Config:
    """An instance of the dataclass `schema` from `--config FILE … key=value …`.

    A FILE that is not found as such is looked for among the recipes that come with the package.
    Raises UsageError for unknown keys, wrong types, values outside CHOICES and missing values.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys and their defaults (??? must be given):\n\n"
        + OmegaConf.to_yaml(OmegaConf.structured(schema)),
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="a recipe; repeatable"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides the recipes")
    arguments = parser.parse_intermixed_args(argv)
    layers = [(f"{path}: ", read_yaml(path)) for path in arguments.config]
    layers += [("", _read_words(arguments.words))]
    return merge(schema, layers)


def merge(schema: type[Config], layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Config:
    """Lays mappings over the defaults of `schema`; each comes with the prefix of its errors."""
    config = OmegaConf.structured(schema)
    known = list(_keys(config))
    for prefix, layer in layers:
        try:
            _check_keys(layer, config, known)
            config = OmegaConf.merge(config, OmegaConf.create(dict(layer)))
        except UsageError as error:
            raise UsageError(f"{prefix}{error}") from error
        except OmegaConfBaseException as error:
            raise UsageError(f"{prefix}{_explain(error)}") from error
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise UsageError(_explain(error)) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(f"{missing[0]} is not set: add {missing[0]}=… or name it in the recipe")
    _check_values(config)
    return OmegaConf.to_object(config)


def _explain(error: OmegaConfBaseException) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    return f"{key}{str(error).splitlines()[0]}"


def _check_values(config: Any) -> None:
    """What holds for a key in every recipe that has it."""

    def given(keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        for key in keys:
            value = OmegaConf.select(config, key)
            several = value if key in ("neighbours", "shots") and value is not None else [value]
            yield from ((key, one) for one in several if one is not None)

    for key, value in given(CHOICES):
        if value not in CHOICES[key]:
            raise UsageError(f"{key}={value} is not one of {', '.join(CHOICES[key])}")
    for key, value in given(AT_LEAST):
        if not value >= AT_LEAST[key]:
            raise UsageError(f"{key}={value} must be at least {AT_LEAST[key]}")
    for key, value in given(WITHIN_1):
        if not 0 <= value <= 1:
            raise UsageError(f"{key}={value} must be between 0 and 1")
    for key, value in given(ABOVE_ZERO):
        if not value > 0:
            raise UsageError(f"{key}={value} must be above 0")
    for key, value in given(["optim.betas"]):
        if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
            raise UsageError(f"{key}={value} must be two numbers in 0 … 1, 1 excluded")
    for key, value in _leaves(OmegaConf.to_container(config)):
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{key}={value} is not a finite number")


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved configuration as plain values, as it goes into a checkpoint."""
    return dataclasses.asdict(config)


def to_yaml(config: Any) -> str:
    """The resolved configuration as it goes into a run's folder."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ between two plain configurations, as `optim.lr: 1 here, 2 there`."""
    a, b = dict(_leaves(mine)), dict(_leaves(theirs))
    absent = "absent"
    return [
        f"{key}: {a.get(key, absent)} here, {b.get(key, absent)} there"
        for key in dict.fromkeys([*a, *b])
        if a.get(key, absent) != b.get(key, absent)
    ]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    for item in dataclasses.fields(OmegaConf.get_type(config)):
        yield f"{prefix}{item.name}"
        kind = OmegaConf.get_type(config, item.name)
        if dataclasses.is_dataclass(kind):
            yield from _keys(config[item.name], f"{prefix}{item.name}.")


def _check_keys(layer: Mapping, config: Any, known: Sequence[str], prefix: str = "") -> None:
    for name, value in layer.items():
        key = f"{prefix}{name}"
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise UsageError(f"{key} is not a key of this recipe; the nearest is {nearest[0]}")
        kind = OmegaConf.get_type(config, name)
        if kind is list and isinstance(value, int | float | str) and "${" not in str(value):
            raise UsageError(f"{key}={value} must be a list, such as {key}=[{value}]")
        if not dataclasses.is_dataclass(kind):
            continue
        if not isinstance(value, Mapping):
            raise UsageError(f"{key} holds further keys, such as {key}.{next(_keys(config[name]))}")
        _check_keys(value, config[name], known, f"{key}.")


def _recipes() -> list[str]:
    return sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.yaml"))


def read_yaml(name: str) -> dict[str, Any]:
    path = Path(name) if Path(name).exists() else RECIPES / name
    if not path.is_file():
        raise UsageError(
            f"--config {name}: no such file, here or among the recipes in {RECIPES}, which are "
            f"{', '.join(_recipes())}"
        )
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UsageError(f"--config {name}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {name}: a recipe is a mapping of keys to values")
    return values


def _read_words(words: Sequence[str]) -> dict[str, Any]:
    for word in words:
        if "=" not in word or word.startswith(("=", "-")):
            hint = f"; a recipe is named by --config {word}" if word.endswith(".yaml") else ""
            raise UsageError(f"'{word}' is not of the form key=value{hint}")
    values = OmegaConf.create()
    for word in words:
        try:
            values.merge_with_dotlist([word])
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise UsageError(
                f"'{word}' cannot be read ({str(error).splitlines()[0]}); put quotes around a word "
                "that has spaces, such as 'key=[1, 2]'"
            ) from error
    return OmegaConf.to_container(values)
