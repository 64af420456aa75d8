"""`ssv2`: Something-Something V2.

ROOT or ROOT/labels holds labels.json ({"Pushing something": "0", …}), train.json, validation.json
and test.json; the names of the later release (something-something-v2-train.json …) work too. The
clips are ID.webm, with any suffix, anywhere below ROOT.
"""

from __future__ import annotations

import json
from typing import Any

from mme_core.datasets.folder import existing_folder
from mme_core.datasets.lookup import Collector, VideoFiles, first_existing
from mme_core.datasets.manifest import Manifest
from mme_core.datasets.paths import AnyPath, read_text
from mme_core.errors import UsageError

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def load(root: str, split: str | None) -> Manifest:
    """Returns the clips of a split: train (default), val or test, which has no labels."""
    top = existing_folder(root)
    split = split or "train"
    if split not in SPLITS:
        raise UsageError(f"ssv2 has no split '{split}'; it has train, val, test")
    names = _read_classes(_find(top, "labels"))
    rows = _read(path := _find(top, SPLITS[split]), list)
    files = VideoFiles(top)
    collector = Collector(top, names)
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "id" not in row:
            raise UsageError(f"{path}: entry {number} has no 'id'")
        template = row.get("template")
        if not isinstance(template, str | None):
            raise UsageError(f"{path}: entry {number} has a 'template' that is not text")
        class_name = template.replace("[", "").replace("]", "") if template else None
        collector.add(str(row["id"]), files.find([str(row["id"])]), class_name)
    return collector.manifest("ssv2", split)


def _read_classes(path: AnyPath) -> list[str]:
    labels = _read(path, dict)
    for name, number in labels.items():
        if not str(number).isdecimal():
            raise UsageError(f"{path}: '{name}' has '{number}' in place of a class number")
    return sorted(labels, key=lambda name: int(labels[name]))


def _find(top: AnyPath, name: str) -> AnyPath:
    files = (f"{name}.json", f"something-something-v2-{name}.json")
    folders = ("", "labels/", "annotations/")
    return first_existing(top, [f"{f}{n}" for f in folders for n in files], f"{name} of ssv2")


def _read(path: AnyPath, kind: type) -> Any:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, kind):
        raise UsageError(f"{path} does not hold a {kind.__name__}; is it another file?")
    return content
