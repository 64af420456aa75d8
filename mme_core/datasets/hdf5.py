"""`hdf5`: encoded videos inside HDF5 files, as clusters keep them where files are counted.

In each ROOT/*.h5 a dataset CLASS/NAME holds the bytes of one video file: uint8 [size], or one
opaque value. With a split: ROOT/SPLIT.h5, ROOT/SPLIT_*.h5 and ROOT/SPLIT/*.h5. A video's path is
`FILE.h5::CLASS/NAME`, which `mme_core.video` opens.
"""

from __future__ import annotations

from pathlib import Path

from mme_core.containers import INSIDE, SUFFIXES
from mme_core.datasets.folder import class_of, existing_folder
from mme_core.datasets.manifest import NO_LABEL, Manifest, VideoItem, sort_items
from mme_core.errors import UsageError


def load(root: str, split: str | None) -> Manifest:
    """The videos in the files of a folder; classes are the first groups of all its files."""
    top = existing_folder(root)
    every = sorted(path for path in top.rglob("*") if path.suffix in SUFFIXES)
    chosen = [path for path in every if split is None or _belongs(path.relative_to(top), split)]
    if not chosen:
        raise UsageError(f"no HDF5 file of split '{split}' in {top}: looked for {split}*.h5")
    names = {path: _videos(path) for path in every}
    classes = sorted({class_of(name) for part in names.values() for name in part} - {""})
    labels = {name: label for label, name in enumerate(classes)}
    items = (
        VideoItem(
            f"{path.relative_to(top).as_posix()}{INSIDE}{name}",
            f"{path}{INSIDE}{name}",
            labels.get(class_of(name), NO_LABEL),
        )
        for path in chosen
        for name in names[path]
    )
    return Manifest("hdf5", str(top), split, tuple(classes), sort_items(items))


def _belongs(path: Path, split: str) -> bool:
    return path.parts[0] == split or path.stem == split or path.stem.startswith(f"{split}_")


def _videos(path: Path) -> list[str]:
    import h5py

    names: list[str] = []

    def visit(name: str, thing: h5py.Group | h5py.Dataset) -> None:
        if isinstance(thing, h5py.Dataset):
            names.append(name)

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read as HDF5: {error}") from error
    return names
