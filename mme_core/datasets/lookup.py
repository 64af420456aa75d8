"""Finds the files that an official list names, in any folder and with any video suffix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mme_core.datasets.folder import find_videos
from mme_core.datasets.manifest import (
    MISSING,
    NO_LABEL,
    Manifest,
    VideoItem,
    count_note,
    none_found,
    sort_items,
)
from mme_core.datasets.paths import AnyPath
from mme_core.datasets.suffixes import VIDEO_SUFFIXES
from mme_core.errors import UsageError


class VideoFiles:
    """The videos below some folders of a data set, by their names without suffix."""

    def __init__(self, top: AnyPath, folders: Iterable[str] = ("",)) -> None:
        """folders: of two files of one name, the one in the earlier folder is used."""
        self._by_stem: dict[str, str] = {}
        self._by_folded: dict[str, str] = {}
        for folder in folders:
            if not (top / folder).is_dir():
                continue
            for name in sorted(find_videos(top / folder)[0]):
                path = PurePosixPath(folder, name)
                # the name of a folder of frames has no suffix, but may have dots
                stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
                self._by_stem.setdefault(stem, str(path))
                self._by_folded.setdefault(stem.casefold(), str(path))

    def find(self, stems: Sequence[str], any_case: bool = False) -> str | None:
        """Returns the file of the first of these names that has one, relative to the root.

        any_case  ignores upper and lower case
        """
        for stem in stems:
            if found := self._by_stem.get(stem):
                return found
            if any_case and (found := self._by_folded.get(stem.casefold())):
                return found
        return None


@dataclass
class Collector:
    """Collects the items of a list, and the problems with its lines."""

    top: AnyPath
    class_names: Sequence[str]
    items: dict[str, VideoItem] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._labels = {name: label for label, name in enumerate(self.class_names)}

    def add(self, name: str, found: str | None, class_name: str | None) -> None:
        """Adds a line of the list.

        name        what the list calls the video
        found       its file; None where it is missing
        class_name  its class; None where the list does not say it
        """
        label = NO_LABEL if class_name is None else self._labels.get(class_name, NO_LABEL)
        if class_name is not None and label == NO_LABEL:
            self.problems["videos of unknown class, kept without a label"].append(
                f"{name}: '{class_name}'"
            )
        if found is None:
            self.problems[MISSING].append(name)
            return
        item = VideoItem(found, str(self.top / found), label)
        known = self.items.setdefault(found, item)
        if known is not item:
            other = "" if known.label == label else " with another label"
            what = f"lines that repeat a video{other}, of which the first counts"
            self.problems[what].append(name)

    def manifest(self, dataset: str, split: str | None) -> Manifest:
        """Returns the manifest. Raises UsageError where all videos of the list are missing."""
        missing = list(dict.fromkeys(self.problems.get(MISSING, ())))  # once each
        if missing and not self.items:
            raise none_found(str(self.top), missing)
        problems = {**self.problems, MISSING: missing}
        notes = (note for what, names in problems.items() for note in count_note(what, names))
        return Manifest(
            dataset,
            str(self.top),
            split,
            tuple(self.class_names),
            sort_items(self.items.values()),
            tuple(notes),
            tuple(missing),
        )


def first_existing(top: AnyPath, names: Iterable[str], what: str) -> AnyPath:
    """Returns the first of these files below `top`. Raises UsageError where none exists."""
    names = list(names)
    for name in names:
        if (top / name).is_file():
            return top / name
    raise UsageError(f"no {what} in {top}: looked for {', '.join(names)}")
