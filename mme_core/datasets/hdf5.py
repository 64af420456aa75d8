"""`hdf5`: video files inside HDF5 files, as on clusters that limit the number of files.

In each ROOT/*.h5, a dataset CLASS/NAME holds the bytes of one video file: uint8 [size], or one
opaque value. The files of a split are ROOT/SPLIT.h5, ROOT/SPLIT_*.h5 and ROOT/SPLIT/*.h5. The path
of a video is `FILE.h5::CLASS/NAME`, which `mme_core.io.video` opens.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from mme_core.datasets.folder import class_of, existing_folder
from mme_core.datasets.manifest import NO_LABEL, Manifest, VideoItem, sort_items
from mme_core.datasets.paths import AnyPath, RemotePath
from mme_core.errors import UsageError
from mme_core.io.containers import INSIDE, SUFFIXES, open_container


def load(root: str, split: str | None) -> Manifest:
    """Lists the videos in a folder's files. The classes are the first groups of all its files."""
    top = existing_folder(root)
    every = _containers(top)
    if not every:
        raise UsageError(f"no HDF5 file in {top}: looked for names that end in .h5 or .hdf5")
    chosen = [name for name in every if split is None or _belongs(PurePosixPath(name), split)]
    if not chosen:
        raise UsageError(f"no HDF5 file of split '{split}' in {top}: looked for {split}*.h5")
    videos = {name: _videos(f"{top}/{name}") for name in every}
    classes = sorted({class_of(video) for part in videos.values() for video in part} - {""})
    labels = {name: label for label, name in enumerate(classes)}
    items = (
        VideoItem(
            f"{name}{INSIDE}{video}",
            f"{top}/{name}{INSIDE}{video}",
            labels.get(class_of(video), NO_LABEL),
        )
        for name in chosen
        for video in videos[name]
    )
    return Manifest("hdf5", str(top), split, tuple(classes), sort_items(items))


def _containers(top: AnyPath) -> list[str]:
    """Returns the names of the HDF5 files, relative to `top`."""
    if isinstance(top, RemotePath):
        return [name for name in top.files() if name.endswith(SUFFIXES)]
    files = (path for path in top.rglob("*") if path.suffix in SUFFIXES)
    return sorted(path.relative_to(top).as_posix() for path in files)


def _belongs(path: PurePosixPath, split: str) -> bool:
    return path.parts[0] == split or path.stem == split or path.stem.startswith(f"{split}_")


def _videos(path: str) -> list[str]:
    import h5py

    names: list[str] = []

    def visit(name: str, thing: h5py.Group | h5py.Dataset) -> None:
        if isinstance(thing, h5py.Dataset):
            names.append(name)

    try:
        with open_container(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read as HDF5: {error}") from error
    return names
