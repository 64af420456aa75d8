"""Where a training run keeps its checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = "checkpoints"


_NAME = re.compile(r"step-(\d{8})\.pt")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    paths = (run / FOLDER).glob("step-*.pt")
    return sorted((p for p in paths if _NAME.fullmatch(p.name)), reverse=True)
