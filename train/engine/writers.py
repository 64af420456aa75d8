"""Where a run's numbers and pictures go beside its folder: Weights & Biases, TensorBoard."""

from __future__ import annotations

import importlib
import inspect
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mme_core.errors import UsageError
from mme_core.keys import dotted
from train.recipes.pretraining import LogConfig

WANDB_ID = "wandb_id.txt"
TENSORBOARD = "tensorboard"


class Writer(Protocol):
    """Takes numbers and pictures under names such as `train/loss`."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


def _has_login(wandb: Any) -> bool:
    """Whether this machine has a key. Older versions of wandb cannot be asked by `login`."""
    if "prompt" in inspect.signature(wandb.login).parameters:
        return wandb.login(prompt=False, verify=False)
    return bool(wandb.api.api_key)


class Wandb:
    """A run at Weights & Biases; without a login in the offline folder RUN/wandb.

    A resumed run goes on with the run that its folder names. `step` is the x axis, so that steps
    which are taken twice fall onto the same place of the curve.
    """

    def __init__(self, project: str, run: Path, config: Mapping[str, Any], after: int) -> None:
        self.wandb = _package("wandb", "log.wandb")
        known = run / WANDB_ID
        if not (after and known.exists()):
            run.mkdir(parents=True, exist_ok=True)
            known.write_text(uuid.uuid4().hex[:12])
        logged_in = bool(os.environ.get("WANDB_API_KEY")) or _has_login(self.wandb)
        self.run = self.wandb.init(
            project=project,
            name=run.name,
            dir=run,
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "online" if logged_in else "offline"),
            resume="allow",
            id=known.read_text().strip(),
        )
        self.run.define_metric("*", step_metric="step")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def picture(self, step: int, name: str, path: Path) -> None:
        self.run.log({"step": step, name: self.wandb.Image(str(path))})

    def close(self) -> None:
        self.run.finish()


class TensorBoard:
    """Event files in RUN/tensorboard. A resumed run hides the steps after its checkpoint."""

    def __init__(self, run: Path, config: Mapping[str, Any], after: int) -> None:
        _package("tensorboard", "log.tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        purge = after + 1 if after else None
        self.writer = SummaryWriter(run / TENSORBOARD, purge_step=purge)
        lines = [f"    {name}: {value}" for name, value in dotted(config).items()]
        self.writer.add_text("recipe", "\n".join(lines), after)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        image = np.asarray(Image.open(path).convert("RGB"))
        self.writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


def start_writers(
    log: LogConfig, run: Path, config: Mapping[str, Any], after: int = 0
) -> list[Writer]:
    """The writers that a recipe asks for.

    config   the resolved recipe
    after    step of the checkpoint that is resumed, or 0
    Raises UsageError where a package is missing.
    """
    writers: list[Writer] = []
    if log.wandb:
        writers.append(Wandb(log.project, run, config, after))
    if log.tensorboard:
        writers.append(TensorBoard(run, config, after))
    return writers


def _package(name: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{key}=true needs the package {name}: pip install {name}") from error
