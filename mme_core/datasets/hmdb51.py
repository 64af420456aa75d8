"""`hmdb51`: CLASS/NAME.avi with CLASS_test_split1.txt … CLASS_test_split3.txt.

A line of these lists is `NAME.avi 1` (train), 2 (test) or 0 (unused). The lists may be in ROOT or
in ROOT/testTrainMulti_7030_splits. The clips are anywhere below ROOT, in folders with the names of
the classes.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mme_core.datasets.folder import existing_folder
from mme_core.datasets.lookup import Collector, VideoFiles
from mme_core.datasets.manifest import Manifest
from mme_core.datasets.paths import AnyPath, read_lines
from mme_core.errors import UsageError

_SPLIT = re.compile(r"(train|test|val)([123])?")
_FOLDERS = ("testTrainMulti_7030_splits", "testTrainMulti_7030_splits/testTrainMulti_7030_splits")
_LINE = re.compile(r"(?P<name>.+?)\s+(?P<use>[012])")


def load(root: str, split: str | None) -> Manifest:
    """Returns the clips of train1 (also `train`, the default), test1 (also `test`, `val`), …"""
    top = existing_folder(root)
    match = _SPLIT.fullmatch(split or "train")
    if match is None:
        raise UsageError(f"hmdb51 has no split '{split}'; it has train1 … train3, test1 … test3")
    use = "1" if match[1] == "train" else "2"
    suffix = f"_test_split{match[2] or 1}.txt"
    lists = _find_lists(top, suffix)
    files = VideoFiles(top)
    collector = Collector(top, sorted(lists))
    for class_name, path in sorted(lists.items()):
        for number, line in read_lines(path):
            row = _LINE.fullmatch(line)
            if row is None:
                raise UsageError(f"{path}:{number}: '{line}' is not `NAME.avi 0|1|2`")
            if row["use"] == use:
                # A name may hold dots.
                name = row["name"]
                found = files.find([PurePosixPath(name).stem, name])
                collector.add(f"{class_name}/{name}", found, class_name)
    return collector.manifest("hmdb51", split or "train")


def _find_lists(top: AnyPath, suffix: str) -> dict[str, AnyPath]:
    for folder in (*_FOLDERS, "annotations", "splits", "."):
        here = top / folder
        paths: list[AnyPath] = [*here.glob(f"*{suffix}")] if here.is_dir() else []
        if paths:
            return {path.name.removesuffix(suffix): path for path in paths}
    raise UsageError(f"no CLASS{suffix} in {top} or {top / _FOLDERS[0]}")
