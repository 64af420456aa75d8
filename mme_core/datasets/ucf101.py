"""`ucf101`: UCF-101/CLASS/v_CLASS_g01_c01.avi with ucfTrainTestlist/.

classInd.txt ("1 ApplyEyeMakeup") numbers the classes, and trainlist01.txt … testlist03.txt list
the clips. They may be in ROOT itself or in the folders of the official archives.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mme_core.datasets.folder import existing_folder
from mme_core.datasets.lookup import Collector, VideoFiles, first_existing
from mme_core.datasets.manifest import Manifest
from mme_core.datasets.paths import AnyPath, read_lines
from mme_core.errors import UsageError

_SPLIT = re.compile(r"(train|test|val)(0?[123])?")
_FOLDERS = ("ucfTrainTestlist/", "annotations/", "")


def load(root: str, split: str | None) -> Manifest:
    """Returns the clips of train01 (also `train`, the default), test01 (also `test`, `val`), …"""
    top = existing_folder(root)
    match = _SPLIT.fullmatch(split or "train")
    if match is None:
        raise UsageError(
            f"ucf101 has no split '{split}'; it has train01 … train03, test01 … test03"
        )
    part = "train" if match[1] == "train" else "test"
    list_name = f"{part}list0{int(match[2] or 1)}.txt"
    classes = _read_classes(first_existing(top, [f"{f}classInd.txt" for f in _FOLDERS], "classes"))
    path = first_existing(top, [f"{folder}{list_name}" for folder in _FOLDERS], "list of ucf101")
    files = VideoFiles(top)
    collector = Collector(top, classes)
    for number, line in read_lines(path):
        name = PurePosixPath(line.split()[0])
        if len(name.parts) != 2:
            raise UsageError(f"{path}:{number}: '{line}' is not CLASS/NAME.avi")
        # The archive spells HandstandPushups in two ways.
        found = files.find([name.stem], any_case=True)
        collector.add(str(name), found, name.parts[0])
    return collector.manifest("ucf101", split or "train")


def _read_classes(path: AnyPath) -> list[str]:
    names: list[str] = []
    for number, line in read_lines(path):
        match = re.fullmatch(r"(\d+)\s+(\S+)", line)
        if match is None or int(match[1]) != len(names) + 1:
            raise UsageError(f"{path}:{number}: '{line}' is not `{len(names) + 1} CLASS`")
        names.append(match[2])
    return names
