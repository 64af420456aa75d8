"""Video files inside an HDF5 file, with paths of the form `FILE.h5::NAME`."""

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
MAX_BYTES = 2 * 2**30  # largest size of a video, because it is read into memory
_COMPRESSION = 16  # HDF5 filters compress an encoded video by less than this factor


def is_inside(path: str) -> bool:
    """Whether the path names a video inside an HDF5 file."""
    container, separator, _ = path.partition(INSIDE)
    return bool(separator) and container.endswith(SUFFIXES)


def open_container(path: str) -> h5py.File:
    """Opens the HDF5 file at a path or URL for reading. Raises OSError for any other file."""
    import h5py

    return h5py.File(RemoteFile(path) if is_url(path) else path)


def read_inside(path: str) -> io.BytesIO:
    """Returns the bytes of a video in an HDF5 file.

    Raises VideoError where the video is missing, and where the dataset is not plain bytes stored
    in this file: it is reached through a link, is stored in other files, is a virtual dataset, is
    incomplete, or is larger than MAX_BYTES.
    """
    container, _, name = path.partition(INSIDE)
    try:
        with open_container(container) as file:
            dataset = _dataset(file, name)
            _check_plain(dataset)
            return io.BytesIO(np.asarray(dataset).tobytes())
    except KeyError as error:
        raise VideoError("no such video in the HDF5 file") from error
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # h5py raises these for damage
        raise VideoError(f"the HDF5 file cannot be read: {error}") from error


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns the dataset of this name without following soft or external links."""
    import h5py

    thing = file["/"]
    for part in name.strip("/").split("/"):
        if not isinstance(thing, h5py.Group):
            raise VideoError("no such video in the HDF5 file")
        link = thing.get(part, getlink=True)
        if isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
            raise VideoError("a link in the HDF5 file, which is not followed")
        thing = thing[part]
    if not isinstance(thing, h5py.Dataset):
        raise VideoError("a group of the HDF5 file, not a video")
    return thing


def _check_plain(dataset: h5py.Dataset) -> None:
    """Raises VideoError, before reading, for a dataset that is not bytes stored in this file."""
    kind = dataset.dtype
    if kind.hasobject or (kind.itemsize != 1 and kind.kind not in "VS"):
        raise VideoError(f"{kind} numbers in the HDF5 file, not the bytes of a video file")
    if dataset.external or dataset.is_virtual:
        raise VideoError("an HDF5 dataset that lies in other files, which are not read")
    if dataset.nbytes > MAX_BYTES:
        raise VideoError(f"{dataset.nbytes} bytes in the HDF5 file; the limit is {MAX_BYTES}")
    filtered = dataset.id.get_create_plist().get_nfilters() > 0
    if dataset.nbytes > dataset.id.get_storage_size() * (_COMPRESSION if filtered else 1):
        raise VideoError("an HDF5 dataset that was not written in full")
