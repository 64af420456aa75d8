"""Video files that lie inside a larger file: `FILE.h5::NAME`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from mme_core.errors import VideoError
from mme_core.io.remote import RemoteFile, is_url

if TYPE_CHECKING:
    import h5py

INSIDE = "::"
SUFFIXES = (".h5", ".hdf5")


def is_inside(path: str) -> bool:
    """Does the path name something in an HDF5 file?"""
    container, separator, _ = path.partition(INSIDE)
    return bool(separator) and container.endswith(SUFFIXES)


def open_container(path: str) -> h5py.File:
    """The HDF5 file at a path or URL, for reading. Raises OSError where it is none."""
    import h5py

    return h5py.File(RemoteFile(path) if is_url(path) else path)


def read_inside(path: str) -> io.BytesIO:
    """The bytes of a video in an HDF5 file; VideoError when they are not there."""
    import h5py

    container, _, name = path.partition(INSIDE)
    try:
        with open_container(container) as file:
            thing = file[name]
            if not isinstance(thing, h5py.Dataset):
                raise VideoError("a group of the HDF5 file, not a video")
            data = np.asarray(thing)
    except KeyError as error:
        raise VideoError("no such video in the HDF5 file") from error
    except OSError as error:
        raise VideoError(f"the HDF5 file cannot be read: {error}") from error
    if data.dtype.itemsize != 1 and data.dtype.kind not in "VS":
        raise VideoError(f"{data.dtype} numbers in the HDF5 file, not the bytes of a video file")
    return io.BytesIO(data.tobytes())
