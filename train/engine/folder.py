"""Before a run starts: does the store fit the recipe, and is its folder free or its own?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mme_core.errors import StoreError, UsageError
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.store.layout import LOCK
from train.engine.distributed import Ranks
from train.engine.runlog import RunLog
from train.recipes import loading
from train.recipes.pretraining import DataConfig, PretrainConfig

CONFIG = "config.yaml"

# A run may go on with other values of these: they do not change what it learns. The sampler checks
# that batch_size × processes × accumulate stays the same.
FREE = (
    "out",
    "device",
    "resume",
    "compile",
    "nonfinite_budget",
    "data.batch_size",
    "data.workers",
    "data.stage",
    "optim.accumulate",
    "checkpoint.",
    "eval.",
    "log.",
)


def check_spec(store: TargetStore, config: PretrainConfig) -> None:
    """Raises StoreError naming the field of a store's specification that the recipe cannot use.

    `ClipDataset` and `content_sizes` check what else they need of it: canvas, frames, length,
    camera, and that a video is as long as a clip.
    """
    for field, key, wanted in (
        ("stride", "data.stride", config.data.stride),
        ("patch", "model.patch", config.model.patch),
        ("points", "target.points", config.target.points),
    ):
        value = getattr(store.spec, field)
        if wanted not in (None, value):
            raise StoreError(
                f"{store.url}: spec.{field}={value} does not fit the recipe's {key}={wanted}: "
                f"change {key}, or make a store with spec.{field}={wanted}"
            )


def check_finished(store: TargetStore) -> None:
    """Raises StoreError for a store that is being written: its videos are still to change."""
    if open_place(store.url).exists(LOCK):
        raise StoreError(
            f"{store.url} is being written, or was left unfinished ({LOCK} is in it): run `mme "
            "flows` until it is done"
        )


def check_same_spec(store: TargetStore, val: TargetStore) -> None:
    """Raises StoreError naming the first field in which the held-out store differs."""
    differing = val.spec.differences(store.spec)
    if differing:
        raise StoreError(f"{val.url} is made otherwise than {store.url}: spec.{differing[0]}")


def check_command(config: Any) -> Any:
    """The configuration that `out` holds of this command, or None.

    Raises UsageError where it holds another command's, whose output would be lost.
    """
    path = Path(config.out) / CONFIG
    if not path.exists():
        return None
    try:
        return loading.merge(type(config), [("", loading.read_yaml(str(path)))])
    except UsageError as error:
        raise UsageError(
            f"out={config.out} holds the output of another command ({path}: {error}): choose "
            "another out=…"
        ) from error


def check_folder(config: PretrainConfig) -> None:
    """Raises UsageError where `out` holds another command's output or a run of another recipe."""
    theirs = check_command(config)
    if theirs is None or config.resume == "force":
        return
    changed = [
        line
        for line in loading.differences(loading.to_dict(config), loading.to_dict(theirs))
        if not line.startswith(FREE)
    ]
    if changed:
        raise UsageError(
            f"out={config.out} holds another run ({'; '.join(changed[:3])}): choose another out=…, "
            "or go on with it all the same by resume=force"
        )


def write_config(config: PretrainConfig) -> None:
    """The resolved recipe beside the run's output."""
    folder = Path(config.out)
    aside = folder / f".{CONFIG}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_text(loading.to_yaml(config))
        aside.replace(folder / CONFIG)
    except OSError as error:
        raise UsageError(
            f"out={config.out}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def begin(config: PretrainConfig, ranks: Ranks, done: int, warnings: list[str]) -> RunLog:
    """Writes the recipe into the run's folder and opens its log, to go on after step `done`.

    Every process has read what the folder held before the main one writes into it. `warnings` of
    that reading become the log's first lines.
    """
    ranks.gather(None)
    if ranks.main:
        write_config(config)
    project = config.log.project if config.log.wandb else None
    recipe = loading.to_dict(config)
    log = RunLog(Path(config.out), ranks.main, recipe, wandb=project, after=done)
    for text in warnings:
        log.warn(text)
    return log


def videos_per_batch(data: DataConfig) -> int:
    """Videos of a process' micro-batch: its clips are data.crops of each."""
    if data.crops < 1 or data.batch_size % data.crops:
        raise UsageError(
            f"data.crops={data.crops} must divide data.batch_size={data.batch_size}, which counts "
            "clips"
        )
    return data.batch_size // data.crops


def spec_differences(theirs: Mapping[str, Any], ours: TargetSpec) -> list[str]:
    return ours.differences(TargetSpec.from_dict(theirs))


def check_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise UsageError(f"-o {path}: the name must end in {suffix}")
