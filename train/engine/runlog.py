"""Reports a run: rows of metrics.jsonl, lines on the terminal, numbers and pictures to writers."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mme_core.errors import MMEError
from mme_core.terminal import is_quiet, styled
from mme_core.weights.run_folder import METRICS, read_metrics
from train.engine.writers import Writer


class RunLog:
    """Writes in the main process and is silent in the others.

    run      the run's folder
    main     whether this is the main process
    writers  where numbers and pictures go as well; closed with the log
    after    step of the checkpoint that is resumed: rows of later steps, which an interrupted run
             left, are dropped, so that metrics.jsonl holds every step once
    """

    def __init__(
        self, run: Path, main: bool, writers: Sequence[Writer] = (), *, after: int = 0
    ) -> None:
        self.console = Console(quiet=not main or is_quiet(), highlight=False, soft_wrap=True)
        self.path = run / METRICS if main else None
        self.writers = writers
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

    def row(
        self, values: Mapping[str, Any], *, group: str = "train", system: Collection[str] = ()
    ) -> None:
        """One object of metrics.jsonl; `step` is the number of steps done.

        Writers get its numbers as GROUP/NAME, those in `system` as system/NAME.
        """
        if self.path is None:
            return
        try:
            with self.path.open("a") as file:
                file.write(_line(values))
        except OSError as error:
            raise MMEError(
                f"{self.path}: cannot be written ({error.strerror}): mend that and run the same "
                "command again, which goes on from the last checkpoint"
            ) from error
        named = {
            f"{'system' if name in system else group}/{name.removeprefix('val_')}": value
            for name, value in values.items()
            if name not in ("step", "epoch") and isinstance(value, (int, float))
        }
        if "epoch" in values:
            named["train/epoch"] = values["epoch"]
        for writer in self.writers if named else ():
            writer.numbers(values["step"], named)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Hands a picture file of the run's folder to the writers, as held-out/NAME."""
        for writer in self.writers:
            writer.picture(step, f"held-out/{name}", path)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def step_line(row: Mapping[str, Any], steps: int, terms: list[str]) -> str:
    """A row of metrics as a line of the terminal."""
    width = len(str(steps))
    parts = "".join(f"{name} {row[name]:.4f}  " for name in terms)
    left = timedelta(seconds=round(row["eta"]))
    # On a CPU the host is the device: it has nothing to do while it waits for the loader.
    idle = f"idle {row.get('device_idle', row['data_wait']):.0%}  "
    if "mfu" in row:
        idle += f"MFU {row['mfu']:.0%}  "
    return (
        f"step {row['step']:>{width}}/{steps}  epoch {row['epoch']:.2f}  "
        f"loss {row['loss']:.4f}  {parts}lr {row['lr']:.2e}  "
        f"grad {row['grad_norm']:.2f}  {row['clips_per_s']:.1f} clips/s  {idle}"
        f"{row['memory']:.1f} GB  left {left}"
    )


def _drop_rows(path: Path, after: int) -> None:
    if not path.exists():
        return
    rows = [row for row in read_metrics(path.parent) if row["step"] <= after]
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(map(_line, rows)))
    aside.replace(path)


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON. JSON has no infinity and no NaN: they become null."""
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(values, allow_nan=False) + "\n"
