"""Are held-out videos also training videos? Then what is measured on them means nothing.

Two video files count as the same if their paths are equal, if they are two names of one file, or if
their sizes and samples of their bytes are equal. Two videos of stores count as the same if their
first targets are equal. An equal id alone proves nothing: CLASS/0001.mp4 is a usual name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mme_core.datasets import VideoItem, load_manifest
from mme_core.errors import MMEError, StoreError, UsageError
from mme_core.io.place import local_path
from mme_core.io.remote import is_url
from mme_core.store import TargetStore

Videos = Sequence[VideoItem] | TargetStore

_THREADS = 16  # a network disk answers many questions at once
_SAMPLE = 4096  # bytes at a file's begin, middle and end
_MOST_READ = 2000  # videos of a store whose targets are read
_ONE_SPEC = ("frames", "height", "width", "fps")  # columns that are equal for the same video


@dataclass(frozen=True)
class Overlap:
    """Held-out ids with the training ids they are the same video as, or may be.

    same    by path or content
    alike   by id, where the contents cannot be compared: a store and files, or two specifications
    """

    same: Mapping[str, str]
    alike: Mapping[str, str]


def check_overlap(train: Videos, val: Videos, mend: str) -> str:
    """A warning where some held-out videos are training videos, or an empty text.

    Raises UsageError where all of them are; `mend` says how to name others.
    """
    overlap = find_overlap(train, val)
    count = len(val.videos) if isinstance(val, TargetStore) else len(val)
    if count and len(overlap.same) == count:
        raise UsageError(
            f"all {count} held-out videos are training videos ({_example(overlap.same)}): {mend}"
        )
    texts = []
    if overlap.same:
        texts.append(
            f"{len(overlap.same)} of {count} held-out videos are training videos "
            f"({_example(overlap.same)}): what is measured on them is too good; {mend}"
        )
    if overlap.alike:
        texts.append(
            f"{len(overlap.alike)} of {count} held-out videos have the ids of training videos "
            f"({_example(overlap.alike)}): check that they are other videos"
        )
    return "; ".join(texts)


def find_overlap(train: Videos, val: Videos) -> Overlap:
    """Which held-out videos are training videos.

    Of two large stores only videos of equal ids are compared. Where a sample of these is all equal
    or all different, the rest counts as the sample.
    """
    if isinstance(train, TargetStore) and isinstance(val, TargetStore):
        return _of_stores(train, val)
    if isinstance(train, TargetStore) or isinstance(val, TargetStore):
        return Overlap({}, _equal_ids(_ids(train), _ids(val)))
    return Overlap(_of_files(train, val), {})


def trained_videos(recipe: Mapping[str, Any]) -> Videos | None:
    """The training videos that a classifier's recipe names; None where they are not here.

    What lies behind a URL is not asked for: a recipe may come from anybody.
    """
    data = recipe.get("data") or {}
    store, root = recipe.get("store"), data.get("root")
    try:
        if store and not is_url(store):
            return TargetStore(store)
        if data.get("dataset") not in (None, "demo") and root and not is_url(root):
            return load_manifest(data["dataset"], root, data.get("train_split")).items
    except MMEError:
        return None
    return None


def _example(pairs: Mapping[str, str]) -> str:
    mine, theirs = next(iter(pairs.items()))
    return mine if mine == theirs else f"{mine} is {theirs}"


def _ids(videos: Videos) -> Sequence[str]:
    if isinstance(videos, TargetStore):
        return list(videos.videos["id"])
    return [item.id for item in videos]


def _equal_ids(train: Sequence[str], val: Sequence[str]) -> dict[str, str]:
    known = set(train)
    return {name: name for name in val if name in known}


# video files


def _of_files(train: Sequence[VideoItem], val: Sequence[VideoItem]) -> dict[str, str]:
    known = {item.path: item.id for item in train}
    same = {item.id: known[item.path] for item in val if item.path in known}
    rest = [item for item in val if item.id not in same]
    if not rest:
        return same
    theirs, mine = _stats(train), _stats(rest)
    inodes = {(s.st_dev, s.st_ino): item.id for item, s in zip(train, theirs) if s}
    for item, status in zip(rest, mine):
        if status and (twin := inodes.get((status.st_dev, status.st_ino))):
            same[item.id] = twin
    sizes = {_size(s) for s in theirs} & {_size(s) for s in mine} - {0}
    contents = {
        _content(item.path, s.st_size): item.id
        for item, s in zip(train, theirs)
        if s and _size(s) in sizes
    }
    for item, status in zip(rest, mine):
        if item.id in same or not status or _size(status) not in sizes:
            continue
        if twin := contents.get(_content(item.path, status.st_size)):
            same[item.id] = twin
    return same


def _stats(items: Sequence[VideoItem]) -> list[os.stat_result | None]:
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = [items[first::_THREADS] for first in range(_THREADS)]
        found = list(pool.map(lambda part: [_stat(item.path) for item in part], parts))
    return [found[number % _THREADS][number // _THREADS] for number in range(len(items))]


def _stat(path: str) -> os.stat_result | None:
    try:
        return None if is_url(path) else Path(path).stat()
    except (OSError, ValueError):
        return None  # it is missing, or lies inside another file


def _size(status: os.stat_result | None) -> int:
    """Bytes of a file; 0 for what is none."""
    return status.st_size if status and stat.S_ISREG(status.st_mode) else 0


def _content(path: str, size: int) -> tuple[int, bytes]:
    """The size and a digest of samples; the path in its place where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            for offset in (0, max(size // 2, 0), max(size - _SAMPLE, 0)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE))
            return size, digest.digest()
    except OSError:
        return size, os.fsencode(path)


# stores


def _of_stores(train: TargetStore, val: TargetStore) -> Overlap:
    if _same_place(train, val):
        return Overlap({name: name for name in _ids(val)}, {})
    if train.spec.hash != val.spec.hash:
        return Overlap({}, _equal_ids(_ids(train), _ids(val)))
    marks = _marks(train, with_id=True)
    pairs = [
        (video, marks[mark][0])
        for video, mark in enumerate(_row_marks(val, with_id=True))
        if mark in marks
    ]

    def equal(some: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [pair for pair in some if _targets(val, pair[0]) == _targets(train, pair[1])]

    sample = pairs[:: max(1, -(-len(pairs) // _MOST_READ))]
    found = equal(sample)
    if len(sample) < len(pairs) and found:
        found = pairs if len(found) == len(sample) else equal(pairs)
    same = dict(found)
    same |= _renamed(train, val, same)
    ids, theirs = _ids(val), _ids(train)
    return Overlap({ids[video]: theirs[twin] for video, twin in same.items()}, {})


def _renamed(train: TargetStore, val: TargetStore, known: Mapping[int, int]) -> dict[int, int]:
    """Videos of equal targets under other ids, where there are few to compare."""
    marks = _marks(train, with_id=False)
    mine = [
        (video, mark)
        for video, mark in enumerate(_row_marks(val, with_id=False))
        if video not in known and mark in marks
    ]
    theirs = {twin for _, mark in mine for twin in marks[mark]}
    if len(mine) + len(theirs) > _MOST_READ:
        return {}
    contents = {_targets(train, twin): twin for twin in theirs}
    found = ((video, contents.get(_targets(val, video))) for video, _ in mine)
    return {video: twin for video, twin in found if twin is not None}


def _same_place(one: TargetStore, other: TargetStore) -> bool:
    first, second = local_path(one.url), local_path(other.url)
    if first is None or second is None:
        return one.url == other.url
    return first.resolve() == second.resolve()


def _row_marks(store: TargetStore, *, with_id: bool) -> list[tuple[Any, ...]]:
    names = (*(["id"] if with_id else []), *_ONE_SPEC)
    return list(zip(*(store.videos[name].tolist() for name in names)))


def _marks(store: TargetStore, *, with_id: bool) -> dict[tuple[Any, ...], list[int]]:
    """Rows of a store by what can be compared without reading targets."""
    rows: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for video, mark in enumerate(_row_marks(store, with_id=with_id)):
        rows[mark].append(video)
    return rows


def _targets(store: TargetStore, video: int) -> bytes:
    """A digest of the first tubelet; one of its own for a video that cannot be read."""
    try:
        window = store.read_coded(video, 0, 1, frames=False)
    except StoreError:
        return f"{store.url} {video}".encode()
    digest = hashlib.sha256()
    for array in (window.position, window.shape, window.moments, window.valid):
        digest.update(array.tobytes())
    return digest.digest()
