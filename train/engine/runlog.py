"""What a run reports: metrics.jsonl, a line for each logged step, and wandb on request."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from mme_core.errors import MMEError
from mme_core.terminal import styled

METRICS = "metrics.jsonl"
WANDB_ID = "wandb_id.txt"


class RunLog:
    """Writes in the main process and is silent in the others.

    run      the run's folder
    main     whether this is the main process
    config   the resolved configuration, for wandb
    wandb    name of a wandb project, or None; without a login wandb writes its offline folder
    after    step of the checkpoint that is resumed: rows of later steps, which an interrupted run
             left, are dropped, so that metrics.jsonl holds every step once
    """

    def __init__(
        self,
        run: Path,
        main: bool,
        config: Mapping[str, Any],
        *,
        wandb: str | None = None,
        after: int = 0,
    ) -> None:
        self.console = Console(quiet=not main, highlight=False, soft_wrap=True)
        self.path = run / METRICS if main else None
        self.wandb = _start_wandb(wandb, run, config, resumed=after > 0) if wandb and main else None
        if self.path:
            _drop_rows(self.path, after)

    def say(self, text: str, *bold: str) -> None:
        """Prints a line; the words `bold` of it stand out on a terminal."""
        line = styled(text)
        line.highlight_words(bold, "bold")
        self._print(line)

    def warn(self, text: str) -> None:
        self._print(styled("warning:", "yellow"), styled(text))

    def _print(self, *texts: Text) -> None:
        """Goes silent when the terminal has closed, so that the run can save."""
        try:
            self.console.print(*texts)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            silence = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(silence, stream)
            os.close(silence)

    def row(self, values: Mapping[str, Any]) -> None:
        """One object of metrics.jsonl; `step` is the number of steps done."""
        if self.path is None:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(dict(values)) + "\n")
        except OSError as error:
            raise MMEError(
                f"{self.path}: cannot be written ({error.strerror}): mend that and run the same "
                "command again, which goes on from the last checkpoint"
            ) from error
        if self.wandb:
            self.wandb.log({k: v for k, v in values.items() if k != "step"}, step=values["step"])

    def close(self) -> None:
        if self.wandb:
            self.wandb.finish()


class Meter:
    """Clips per second, the share of time spent waiting for data, and the time left."""

    def __init__(self, clips_per_step: int, steps_left: int) -> None:
        self.clips, self.left = clips_per_step, steps_left
        self.waited, self.steps = 0.0, 0
        self.began = time.perf_counter()

    def read(self, device: torch.device) -> dict[str, float]:
        """The figures since the last reading."""
        now = time.perf_counter()
        spent = max(now - self.began, 1e-9)
        self.left -= self.steps
        figures = {
            "clips_per_s": self.clips * self.steps / spent,
            "data_wait": self.waited / spent,
            "memory": peak_memory(device),
            "eta": self.left * spent / max(self.steps, 1),
        }
        self.began, self.waited, self.steps = now, 0.0, 0
        return {name: round(value, 4) for name, value in figures.items()}


def peak_memory(device: torch.device) -> float:
    """GB: the peak of what torch has held on the GPU, or of this process' RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def step_line(row: Mapping[str, Any], steps: int, terms: list[str]) -> str:
    """A row of metrics as a line of the terminal."""
    width = len(str(steps))
    parts = "".join(f"{name} {row[name]:.4f}  " for name in terms)
    left = timedelta(seconds=round(row["eta"]))
    return (
        f"step {row['step']:>{width}}/{steps}  epoch {row['epoch']:.2f}  "
        f"loss {row['loss']:.4f}  {parts}lr {row['lr']:.2e}  "
        f"grad {row['grad_norm']:.2f}  {row['clips_per_s']:.1f} clips/s  "
        f"wait {row['data_wait']:.0%}  {row['memory']:.1f} GB  left {left}"
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, without a last line that a kill cut off."""
    rows = []
    for line in (run / METRICS).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _drop_rows(path: Path, after: int) -> None:
    if not path.exists():
        return
    rows = [row for row in read_metrics(path.parent) if row["step"] <= after]
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(json.dumps(row) + "\n" for row in rows))
    aside.replace(path)


def _start_wandb(project: str, run: Path, config: Mapping[str, Any], resumed: bool) -> Any:
    """Starts a run at wandb; a resumed run goes on with the one that its folder names."""
    import wandb

    known = run / WANDB_ID
    if not (resumed and known.exists()):
        run.mkdir(parents=True, exist_ok=True)
        known.write_text(uuid.uuid4().hex[:12])
    logged_in = bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
    mode: Any = os.environ.get("WANDB_MODE", "online" if logged_in else "offline")
    return wandb.init(
        project=project,
        name=run.name,
        dir=run,
        config=dict(config),
        mode=mode,
        resume="allow",
        id=known.read_text().strip(),
    )
