"""`folder`: DIR/CLASS/…/NAME.mp4. The class is the first folder below the root.

A split is read from DIR/split.csv (columns path, class, split). Without that file, the videos of a
split are in DIR/SPLIT/CLASS.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mme_core.datasets.manifest import (
    NO_LABEL,
    Manifest,
    VideoItem,
    count_note,
    missing_note,
    sort_items,
)
from mme_core.datasets.paths import AnyPath, RemotePath, any_path, read_table
from mme_core.datasets.suffixes import VIDEO_SUFFIXES
from mme_core.errors import UsageError, VideoError
from mme_core.io.frame_folder import picture_numbers

SPLIT_FILE = "split.csv"
_SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")


def load(root: str, split: str | None) -> Manifest:
    """Lists the videos below `root`, without hidden files and files without a video's suffix."""
    top = existing_folder(root)
    if split is not None and (top / SPLIT_FILE).is_file():
        return _from_split_file(top, split)
    if split is not None:
        return _from_split_folder(top, split)
    ids, others = find_videos(top)
    names = sorted({class_of(video) for video in ids} - {""})
    items = _items(top, ((video, class_of(video)) for video in ids), names)
    return Manifest("folder", str(top), None, tuple(names), sort_items(items), _notes(others))


def existing_folder(root: str) -> AnyPath:
    """Returns a folder's absolute path or URL. Raises UsageError if it is not a folder."""
    top = absolute(any_path(root))
    if not top.is_dir():
        state = "is not a folder" if top.exists() else "does not exist"
        raise UsageError(f"the data set's folder {top} {state}; set root=…")
    return top


def absolute(path: AnyPath) -> AnyPath:
    if isinstance(path, RemotePath):
        return path
    return Path(os.path.abspath(path))  # noqa: PTH100 – Path.resolve() would follow links


def find_videos(top: AnyPath) -> tuple[list[str], list[str]]:
    """Returns the ids (posix paths relative to `top`) of the videos, and of the other files.

    A folder of numbered pictures, without subfolders and video files, is a video. Links to folders
    are followed, and each folder is visited once. An empty folder that is named like a video counts
    as a video, so that it gets a row in the ledger.
    """
    videos: list[str] = []
    others: list[str] = []
    for folder, has_folders, files in _folders(top):
        kinds: tuple[list[str], list[str]] = ([], [])
        for name in files:
            kinds[_suffix(name) not in VIDEO_SUFFIXES].append(f"{folder}/{name}".lstrip("/"))
        leaf = bool(folder) and not has_folders and not kinds[0]
        if leaf and (_holds_frames(files) or (not files and _suffix(folder) in VIDEO_SUFFIXES)):
            videos.append(folder)
            continue
        videos += kinds[0]
        others += kinds[1]
    return videos, others


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _holds_frames(names: Sequence[str]) -> bool:
    try:
        return bool(picture_numbers(names))
    except VideoError:
        return True  # extraction will quarantine it with the reason


def _folders(top: AnyPath) -> Iterator[tuple[str, bool, list[str]]]:
    """Yields (folder relative to `top`, whether it has subfolders, files) without hidden ones."""
    if not isinstance(top, RemotePath):
        for here, subfolders, files in _walk(top):
            folder = here.relative_to(top).as_posix()
            yield "" if folder == "." else folder, bool(subfolders), files
        return
    inside: dict[str, list[str]] = defaultdict(list)
    for name in top.files():
        path = PurePosixPath(name)
        if not any(part.startswith(".") for part in path.parts):
            inside["" if str(path.parent) == "." else str(path.parent)].append(path.name)
    parents = {str(parent) for folder in inside for parent in PurePosixPath(folder).parents}
    for folder, files in inside.items():
        yield folder, folder in parents, files


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}")

    seen = {top.resolve()}
    for folder, subfolders, files in os.walk(top, onerror=refuse, followlinks=True):
        here = Path(folder)
        visible = [name for name in sorted(subfolders) if not name.startswith(".")]
        subfolders[:] = []
        for name in visible:
            target = (here / name).resolve()
            if target not in seen:
                seen.add(target)
                subfolders.append(name)
        yield here, subfolders, [name for name in files if not name.startswith(".")]


def class_of(video: str) -> str:
    """Returns the first folder of an id, or "" for a video directly below the root."""
    first, slash, _ = video.partition("/")
    return first if slash else ""


def _items(
    top: AnyPath, videos: Iterable[tuple[str, str]], names: list[str]
) -> Iterator[VideoItem]:
    """Makes items of (id, class) pairs. `names` holds the classes in the order of the labels."""
    labels = {name: label for label, name in enumerate(names)}
    for video, class_name in videos:
        yield VideoItem(video, f"{top}/{video}", labels.get(class_name, NO_LABEL))


def _notes(others: list[str]) -> tuple[str, ...]:
    shown = [name for name in others if name != SPLIT_FILE]
    return count_note("files left out, without a video's suffix", shown)


def _from_split_folder(top: AnyPath, split: str) -> Manifest:
    folder = top / split
    if not folder.is_dir():
        raise UsageError(
            f"split '{split}': there is neither {top / SPLIT_FILE} nor {folder}; write that table, "
            "with columns path, class and split, or make that folder"
        )
    ids, others = find_videos(folder)
    # The class folders of all splits count, so that a class has the same label in each split.
    names = sorted(
        {
            entry.name
            for name in {*_SPLIT_FOLDERS, split}
            if (top / name).is_dir()
            for entry in (top / name).iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        }
    )
    items = _items(top, ((f"{split}/{video}", class_of(video)) for video in ids), names)
    return Manifest("folder", str(top), split, tuple(names), sort_items(items), _notes(others))


def _from_split_file(top: AnyPath, split: str) -> Manifest:
    rows = list(read_split_file(top / SPLIT_FILE))
    splits = sorted({row["split"] for row in rows})
    if split not in splits:
        raise UsageError(f"{top / SPLIT_FILE} has no split '{split}'; it has {', '.join(splits)}")
    names = sorted({row["class"] for row in rows} - {""})
    chosen = ((row["path"], row["class"]) for row in rows if row["split"] == split)
    items = sort_items(_items(top, chosen, names))
    return Manifest("folder", str(top), split, tuple(names), items, missing_note(items, str(top)))


def read_split_file(path: AnyPath) -> Iterator[dict[str, str]]:
    """Yields the rows of a split.csv. Without a column `class` it is the path's first folder."""
    reader = read_table(path)
    missing = {"path", "split"} - set(reader.fieldnames or ())
    if missing:
        raise UsageError(f"{path}:1: no column '{min(missing)}'; it needs path,class,split")
    for row in reader:
        video, split = row["path"], row["split"]
        if not video or not split or None in row:
            raise UsageError(f"{path}:{reader.line_num}: a row must be path,class,split")
        if video.startswith("/") or ".." in video.split("/"):
            raise UsageError(
                f"{path}:{reader.line_num}: '{video}' must be a path below the list's folder"
            )
        yield {"path": video, "class": row.get("class") or class_of(video), "split": split}
