"""How the arrays of a shard are laid out and coded: what the writer and the reader share.

A shard is a Zarr v3 group. Every array is cut along its first axis into *files* (Zarr's shards),
each written once, and these into *chunks*, the unit of reading, which carry a crc32c.
docs/measurements/store.md says what was tried and what it cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd

from mme_core import cells
from mme_core.packing import blosc
from mme_core.spec import TUBELET, TargetSpec

# Version of the store's format; a reader refuses a newer one. Since version 2, store.json and each
# shard's table carry a digest of their own bytes.
FORMAT = 2
SEALED_SINCE = 2
LOCK = "flows.lock"  # in a store while stage 1 writes it, or after it was killed

FILE_TUBELETS = 128
SMALL_FILE_TUBELETS = 2048  # for arrays with less than a kilobyte a tubelet; it saves files
CHUNK_TUBELETS = 4
SMALL_CHUNK_TUBELETS = 64
FRAME_CHUNK = 1 << 16  # bytes
FRAME_FILE = 1 << 24
INDEX_ENTRY = 16  # bytes for each chunk in a file's index: offset and size, uint64
_ZSTD_LEVEL, _BLOSC_LEVEL = 1, 3
MISSING = 2**64 - 1  # offset of a chunk that was never written


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a shard.

    name         of the array
    dtype        of its elements, little-endian
    row          shape of one row
    chunk, file  rows in a chunk and in a file
    packing      "zstd"; "bits": axes in another `order`, then Blosc's bit shuffle and zstd;
                 "none": not compressed
    order        with "bits": axes of a chunk in the order in which they are stored
    """

    name: str
    dtype: np.dtype
    row: tuple[int, ...]
    chunk: int
    file: int
    packing: str = "zstd"
    order: tuple[int, ...] = ()

    @property
    def index_size(self) -> int:
        """Bytes of the index at a file's end, its crc32c included."""
        return INDEX_ENTRY * (self.file // self.chunk) + 4

    def key(self, file: int) -> str:
        """Name of a file, relative to the shard."""
        return f"{self.name}/c.{file}" + ".0" * len(self.row)

    def zarr_options(self) -> dict[str, Any]:
        """Arguments for `zarr.create_array`, all but the store."""
        from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec, ZstdCodec

        packers: dict[str, list[Any]] = {
            "zstd": [ZstdCodec(level=_ZSTD_LEVEL)],
            "bits": [BloscCodec(cname="zstd", clevel=_BLOSC_LEVEL, shuffle="bitshuffle")],
            "none": [],
        }
        return {
            "shape": (0, *self.row),
            "shards": (self.file, *self.row),
            "chunks": (self.chunk, *self.row),
            "dtype": self.dtype,
            "filters": [TransposeCodec(order=self.order)] if self.order else None,
            "compressors": [*packers[self.packing], Crc32cCodec()],
            "fill_value": 0,
            # One level of names: the default makes a directory an axis.
            "chunk_key_encoding": {"name": "default", "separator": "."},
            # A chunk of zeros is written too, so that an absent one is damage.
            "config": {"write_empty_chunks": True},
        }


def layouts(spec: TargetSpec) -> dict[str, ArrayLayout]:
    """The arrays of a shard made with `spec`, by name."""
    P, K, L, bins = spec.patches, spec.points, spec.length, spec.hog_bins
    int8, float32, int64 = np.dtype("int8"), np.dtype("<f4"), np.dtype("<i8")
    uint8 = np.dtype("uint8")
    large = partial(ArrayLayout, chunk=CHUNK_TUBELETS, file=FILE_TUBELETS)
    small = partial(ArrayLayout, chunk=SMALL_CHUNK_TUBELETS, file=SMALL_FILE_TUBELETS)
    arrays = [
        large("position", int8, (P, P, K, L, 2)),
        large("shape", int8, (P, P, K, L, bins)),
        large("moments", float32, (P, P, 6), packing="bits", order=(3, 0, 1, 2)),
        small("valid", uint8, (P, P)),
        small("pts", int64, (TUBELET,)),
    ]
    if spec.frames != "none":
        chunk, file = TUBELET * SMALL_CHUNK_TUBELETS, TUBELET * SMALL_FILE_TUBELETS
        arrays += [
            ArrayLayout("frames", uint8, (), FRAME_CHUNK, FRAME_FILE, packing="none"),
            ArrayLayout("frame_ends", int64, (), chunk, file),
        ]
    if spec.camera != "none":
        arrays.append(small("homography", float32, (L, 3, 3)))
    for name in spec.cells:
        codes, moments = cells.codes_name(name), cells.moments_name(name)
        arrays.append(large(codes, int8, (P, P, K, L, cells.bins(name, spec))))
        row = (P, P, cells.MOMENTS)
        arrays.append(large(moments, float32, row, packing="bits", order=(3, 0, 1, 2)))
    return {layout.name: layout for layout in arrays}


def decode_index(layout: ArrayLayout, data: bytes) -> np.ndarray:
    """A file's index, uint64 [chunks, 2] (offset, size). Raises ValueError when it is damaged."""
    return np.frombuffer(_checked(data), "<u8").reshape(layout.file // layout.chunk, 2)


def encode_file(layout: ArrayLayout, chunks: list[bytes]) -> bytes:
    """A file with these chunks as `encode_chunk` returns them; the reverse of `decode_index`."""
    index = np.full((layout.file // layout.chunk, 2), MISSING, "<u8")
    sizes = [len(chunk) for chunk in chunks]
    index[: len(chunks), 1] = sizes
    index[: len(chunks), 0] = np.cumsum([0, *sizes])[:-1]
    return b"".join([*chunks, _with_checksum(index.tobytes())])


def encode_chunk(layout: ArrayLayout, rows: np.ndarray) -> bytes:
    """The stored bytes of one chunk, [chunk, *row]; the reverse of `decode_chunk`."""
    body = rows.transpose(layout.order).tobytes() if layout.order else rows.tobytes()
    if layout.packing == "zstd":
        body = zstd.compress(body, _ZSTD_LEVEL)
    elif layout.packing == "bits":
        how = {"shuffle": blosc.BITSHUFFLE, "typesize": layout.dtype.itemsize}
        body = blosc.compress(body, b"zstd", _BLOSC_LEVEL, **how)
    return _with_checksum(body)


def chunk_size(layout: ArrayLayout) -> int:
    """Bytes of a chunk when it is decoded."""
    return layout.chunk * math.prod(layout.row) * layout.dtype.itemsize


def decode_chunk(
    layout: ArrayLayout, data: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """One chunk [chunk, *row] from its stored bytes (uint8). Raises ValueError for damage.

    out  memory uint8 [chunk_size(layout)] to decode into. A chunk that is not compressed stays
         where it is. A chunk that was written too short is not noticed then
    """
    body: bytes | np.ndarray = _checked(data)
    shape = (layout.chunk, *layout.row)
    size = chunk_size(layout)
    if layout.packing != "none":
        unpack = zstd.decompress if layout.packing == "zstd" else blosc.decompress
        try:
            body = unpack(body, out)
        except (RuntimeError, MemoryError, ValueError) as error:  # it may declare any size
            raise ValueError(str(error) or "it declares more than there is memory") from error
    if len(body) != size:
        raise ValueError(f"{len(body)} bytes where there should be {size}")
    flat = np.frombuffer(body, layout.dtype)
    if not layout.order:
        return flat.reshape(shape)
    stored = flat.reshape([shape[axis] for axis in layout.order])
    return stored.transpose(np.argsort(layout.order))


def _with_checksum(body: bytes) -> bytes:
    return body + google_crc32c.value(body).to_bytes(4, "little")


def _checked(data: bytes | np.ndarray) -> np.ndarray:
    """The bytes before the crc32c, uint8. (google_crc32c takes arrays, but no memoryview.)"""
    stored = np.frombuffer(data, np.uint8)
    body = stored[:-4]
    if google_crc32c.value(body).to_bytes(4, "little") != stored[-4:].tobytes():
        raise ValueError("the checksum does not match")
    return body


def shard_name(number: int) -> str:
    """Folder of a shard, relative to the store."""
    return f"shards/{number:05d}.zarr"


def flow_name(number: int) -> str:
    """File with the kept flow of a shard, relative to the store."""
    return f"{FLOW}/{number:05d}.h5"


FLOW = "flow"
INDEX = "index.npz"
STORE = "store.json"
LEDGER = "ledger.jsonl"
