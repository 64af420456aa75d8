"""Stores that are missing, damaged or of another version are refused by name."""

import struct

import google_crc32c
import numpy as np
import pytest
from made_up_targets import SPEC, change_json, make_store

from mme_core.errors import StoreError
from mme_core.store import layout
from mme_core.store.layout import FORMAT
from mme_core.store.target_store import TargetStore, open_or_create_store
from mme_core.store.writer import ShardWriter


@pytest.mark.parametrize("kind", ["missing", "a folder", "a file"])
def test_no_store(kind, tmp_path):
    path = tmp_path / "store"
    if kind == "a folder":
        path.mkdir()
    if kind == "a file":
        path.write_text("x")
    message = "does not exist" if kind == "missing" else "is not a store"
    with pytest.raises(StoreError, match=message) as caught:
        TargetStore(path)
    assert str(path) in str(caught.value)


def test_an_unknown_kind_of_url():
    with pytest.raises(StoreError, match="nope://x"):
        TargetStore("nope://x")


def test_a_store_in_the_memory_of_another_process():
    with pytest.raises(StoreError, match=r"memory://gone is not in the memory of this process"):
        TargetStore("memory://gone")


def test_a_store_of_quarantined_videos_alone(tmp_path):
    open_or_create_store(tmp_path / "s", SPEC, "folder", None, [])
    with ShardWriter(tmp_path / "s", 0, SPEC) as writer:
        writer.quarantine({"id": "a.mp4", "path": "a.mp4", "label": 0, "reason": "no video"})
    with pytest.raises(StoreError, match="s holds no video: all are quarantined"):
        TargetStore(tmp_path / "s")


def test_a_store_without_shards(tmp_path):
    make_store(tmp_path, [])
    with pytest.raises(StoreError, match="is it being written"):
        TargetStore(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.update(format=FORMAT + 1),
            f"format {FORMAT + 1}, newer than .* {FORMAT}: update mme",
        ),
        (lambda v: v["spec"].update(jpeg_quality=80), "changed by hand"),
        (lambda v: v["spec"].update(colour=2), "damaged.*spec.colour"),
        (lambda v: v.pop("spec"), "damaged"),
    ],
)
def test_store_json_that_cannot_be_used(change, message, copied):
    change_json(copied / "store.json", change)
    with pytest.raises(StoreError, match=message):
        TargetStore(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["attributes"].update(format=FORMAT + 1), f"00001.zarr.*format {FORMAT + 1}"),
        (lambda v: v["attributes"].update(spec_hash="0"), "00001.zarr.*another specification"),
        (lambda v: v.pop("attributes"), "00001.zarr.*damaged"),
    ],
)
def test_a_shard_that_cannot_be_used(change, message, copied):
    change_json(copied / "shards/00001.zarr/zarr.json", change)
    with pytest.raises(StoreError, match=message):
        TargetStore(copied)


def chunk_file(folder, name):
    return next(folder.glob(f"shards/00001.zarr/{name}/c.0*"))


def flip_bit(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", list(layout.layouts(SPEC)))
def test_changed_byte_is_found_wherever_it_is_read(name, copied):
    flip_bit(chunk_file(copied, name), 9)
    store = TargetStore(copied)
    message = f"00001.zarr: array '{name}', rows 0–.*`mme repair` makes shards/00001.zarr"
    with pytest.raises(StoreError, match=message):
        store.read(2, 0, 6)
    assert len(store.read(0, 0, 8).valid) == 8  # other shards are as they were


def test_a_chunk_that_declares_a_terabyte_is_damage():
    packed = struct.pack("<4sBQ", b"\x28\xb5\x2f\xfd", 0xE0, 2**40) + bytes([1, 0, 0])
    data = packed + google_crc32c.value(packed).to_bytes(4, "little")
    with pytest.raises(ValueError, match=r"more than there is memory"):
        layout.decode_chunk(layout.layouts(SPEC)["valid"], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("damage", ["index", "cut off", "empty", "gone"])
def test_a_damaged_file_is_named(damage, copied):
    path = chunk_file(copied, "shape")
    if damage == "index":
        flip_bit(path, -9)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000] if damage == "cut off" else b"")
    with pytest.raises(StoreError, match=r"00001.zarr: array 'shape', rows 0–127.*(index|missing)"):
        TargetStore(copied).read(2, 0, 6)
