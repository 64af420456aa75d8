"""Reads what a run left in its folder: pre-training, fine-tuning, probes, evaluations."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mme_core.errors import UsageError
from mme_core.keys import dotted
from mme_core.weights.run_folder import (
    CONFIG,
    EVALUATION,
    METRICS,
    PICTURES,
    PREDICTIONS,
    PROBE,
    read_metrics,
)

_CHANGED = re.compile(r"# (\S+): (.*) \(default: (.*)\)")
_PICTURE = re.compile(r"step-(\d+)-(\d+)\.png")


@dataclass(frozen=True)
class Run:
    """A run's folder.

    name         of the folder, unique among the runs of a page
    config       {key: value} of config.yaml, with dots between the parts of a key
    changed      (key, value, default) of the keys that the recipe sets, as text
    rows         of metrics.jsonl, by step
    pictures     {number of the clip: [(step, file)]}, by step
    probe        probe.json, or None
    evaluation   evaluation.json, or None
    predictions  (true class, best class) of the labelled test videos
    parent       config of the run whose folder `init` names, {} where it names none
    """

    name: str
    path: Path
    config: dict[str, Any]
    changed: list[tuple[str, str, str]]
    rows: list[dict[str, Any]]
    pictures: dict[int, list[tuple[int, Path]]] = field(default_factory=dict)
    probe: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    predictions: list[tuple[str, str]] = field(default_factory=list)
    parent: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What made the folder, by the keys that only its recipe has."""
        for key, kind in (("probes", "probe"), ("decoder.kind", "pre-training")):
            if key in self.config:
                return kind
        return "fine-tuning" if "optim.lr" in self.config else "evaluation"

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of the rows that have this number."""
        found = [(row["step"], row[key]) for row in self.rows if _is_number(row.get(key))]
        return [step for step, _ in found], [float(value) for _, value in found]

    def numbers(self) -> list[str]:
        """The keys of all numbers in the rows."""
        return list(dict.fromkeys(k for row in self.rows for k, v in row.items() if _is_number(v)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / METRICS).is_file()


def read_run(path: Path, name: str) -> Run:
    """Raises UsageError where a file of the run is damaged."""
    config, changed = _read_config(path / CONFIG)
    init = config.get("init")
    return Run(
        name=name,
        path=path,
        config=config,
        changed=changed,
        rows=read_metrics(path),
        pictures=_find_pictures(path / PICTURES),
        probe=_read_json(path / PROBE),
        evaluation=_read_json(path / EVALUATION),
        predictions=_read_predictions(path / PREDICTIONS),
        parent=_read_config(Path(str(init)) / CONFIG)[0] if init else {},
    )


def names_of(paths: list[Path]) -> list[str]:
    """A short name for each folder: its last part, with as many before it as make it unique."""
    parts = [path.absolute().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"the same run twice: {', '.join(map(str, paths))}")


def _read_config(path: Path) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    import yaml  # comes with the extras, and not with the library alone

    if not path.exists():
        return {}, []
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: is not the recipe of a run")
    head = (line for line in text.splitlines() if line.startswith("# "))
    changed = [found.groups() for found in map(_CHANGED.fullmatch, head) if found]
    return dotted(values), [(key, value, default) for key, value, default in changed]


def _find_pictures(folder: Path) -> dict[int, list[tuple[int, Path]]]:
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("step-*.png")):
        if match := _PICTURE.fullmatch(path.name):
            found.setdefault(int(match[2]), []).append((int(match[1]), path))
    return found


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read ({error}); run the command again") from error


def _read_predictions(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [(row.get("label"), row.get("class_1")) for row in csv.DictReader(file)]
    return [(true, best) for true, best in rows if true and best]


def confusion_of(predictions: list[tuple[str, str]]) -> tuple[np.ndarray, list[str]]:
    """(counts int64 [true, predicted], names of the classes) of the classes that occur."""
    names = sorted({name for pair in predictions for name in pair})
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for true, best in predictions:
        counts[place[true], place[best]] += 1
    return counts, names
