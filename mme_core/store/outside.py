"""Keeps the output of other commands out of a store's folder."""

from __future__ import annotations

import os
from pathlib import Path

from mme_core.errors import UsageError
from mme_core.store.layout import STORE


def check_outside(path: str | os.PathLike[str], key: str) -> None:
    """Raises UsageError where a file or folder of another command would lie in a store.

    path  of the file or folder, on a disk
    key   the word that named it, such as "out=", for the message
    """
    place = Path(path).resolve()
    for folder in (place, *place.parents):
        if (folder / STORE).is_file() and (folder / "shards").is_dir():
            raise UsageError(
                f"{key}{path} lies in the store {folder}: choose a folder outside of it"
            )
