"""`k400`, `k600`, `k700`: Kinetics as CVDF distributes it, or as folders of classes.

ROOT/annotations/SPLIT.csv or ROOT/SPLIT.csv (columns label, youtube_id, time_start, time_end) lists
the clips. They are anywhere below ROOT/SPLIT (or ROOT), named YOUTUBEID_000012_000022.mp4 or
YOUTUBEID.mp4, with any suffix. Without such a list, the clips are ROOT/SPLIT/CLASS/NAME.mp4.
The data set `csv` reads lists of `path label` lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mme_core.datasets import folder
from mme_core.datasets.lookup import Collector, VideoFiles
from mme_core.datasets.manifest import Manifest
from mme_core.datasets.paths import AnyPath, read_table
from mme_core.errors import UsageError

SPLITS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
_LISTS = ("annotations/{}.csv", "{}.csv", "{dataset}_{}.csv", "annotations/{dataset}_{}.csv")
# CVDF's corrected files have the same names as the damaged ones, so their folder comes first
_FOLDERS = ("replacement", "{}", "videos_{}", "videos/{}", "")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")


@dataclass(frozen=True)
class _Row:
    youtube_id: str
    start: str
    end: str
    label: str | None

    @property
    def name(self) -> str:
        return f"{self.youtube_id} {self.start}–{self.end} s" if self.start else self.youtube_id

    @property
    def stems(self) -> list[str]:
        if not self.start:
            return [self.youtube_id]
        start, end = int(float(self.start)), int(float(self.end))
        padded = f"{self.youtube_id}_{start:06d}_{end:06d}"
        return [padded, f"{self.youtube_id}_{start}_{end}", self.youtube_id]


def load(root: str, split: str | None, dataset: str) -> Manifest:
    """Returns the clips of a split: train (default), val or test."""
    top = folder.existing_folder(root)
    split = split or "train"
    if split not in SPLITS:
        raise UsageError(f"{dataset} has no split '{split}'; it has {', '.join(SPLITS)}")
    lists = {name: _find_list(top, name, dataset) for name in SPLITS}
    if lists[split] is None:
        if not any((top / name).is_dir() for name in SPLITS[split]):
            looked = ", ".join(pattern.format(split, dataset=dataset) for pattern in _LISTS)
            raise UsageError(
                f"no list of {dataset} in {top}: looked for {looked}, and for {split}/"
            )
        name = next(name for name in SPLITS[split] if (top / name).is_dir())
        return replace(folder.load(root, name), dataset=dataset, split=split)
    rows = {name: list(_read(path)) for name, path in lists.items() if path is not None}
    names = sorted({row.label for part in rows.values() for row in part if row.label is not None})
    folders = [f.format(name) for f in _FOLDERS for name in SPLITS[split]]
    files = VideoFiles(top, dict.fromkeys(folders))
    collector = Collector(top, names)
    for row in rows[split]:
        collector.add(row.name, files.find(row.stems), row.label)
    return collector.manifest(dataset, split)


def _find_list(top: AnyPath, split: str, dataset: str) -> AnyPath | None:
    for name in SPLITS[split]:
        for pattern in _LISTS:
            path = top / pattern.format(name, dataset=dataset)
            if path.is_file():
                return path
    return None


def _read(path: AnyPath) -> Iterator[_Row]:
    reader = read_table(path)
    if "youtube_id" not in (reader.fieldnames or ()):
        raise UsageError(
            f"{path}:1: no column 'youtube_id'; for a list of `path label` lines set dataset=csv"
        )
    for row in reader:
        start, end = row.get("time_start") or "", row.get("time_end") or ""
        timed = start or end
        known = _SECONDS.fullmatch(start) and _SECONDS.fullmatch(end)
        if not row["youtube_id"] or (timed and not known):
            raise UsageError(f"{path}:{reader.line_num}: needs a youtube_id and times in seconds")
        yield _Row(row["youtube_id"], start, end, row.get("label") or None)
