"""The files of a run's folder: their names, and how to read its rows of metrics."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

CHECKPOINTS, PICTURES = "checkpoints", "pictures"  # folders
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
PROBE = "probe.json"
EVALUATION, PREDICTIONS = "evaluation.json", "predictions.csv"

_NAME = re.compile(r"step-(\d{8})\.pt")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    paths = (run / CHECKPOINTS).glob("step-*.pt")
    return sorted((p for p in paths if _NAME.fullmatch(p.name)), reverse=True)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, up to a line that a kill cut off; [] where there is none.

    Every row has a `step`, the number of steps done. NaN stands for null, which is a number that
    was not finite.
    """
    path = run / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
    return rows


def has_number(run: Path, step: int, prefix: str) -> bool:
    """Whether metrics.jsonl has a number of this step whose name begins with `prefix`."""
    rows = read_metrics(run)
    return any(row["step"] == step and name.startswith(prefix) for row in rows for name in row)
