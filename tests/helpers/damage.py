"""Damage to stores that were written in several shards."""

from __future__ import annotations

from pathlib import Path

from mme_core import cli

SPEC = ("spec.short_side=64", "spec.long_side=80", "spec.flow=dis-ultrafast")


def write_shards(videos: Path, store: Path) -> Path:
    """A store of the folder's videos, two in each shard."""
    words = ["flows", "--dataset", "folder", "--root", str(videos), "--store", str(store)]
    assert cli.main([*words, "--serial", "--videos-per-shard", "2", *SPEC]) == 0
    return store


def repair(store: Path) -> None:
    assert cli.main(["repair", str(store)]) == 0


def flip_bytes(store: Path, shard: int, array: str = "position") -> None:
    """Changes bytes all over the first file of an array."""
    path = min((store / "shards" / f"{shard:05d}.zarr" / array).glob("c.*"))
    data = bytearray(path.read_bytes())
    for place in range(20, len(data) - 300, 40):
        data[place] ^= 1
    path.write_bytes(data)


def flip_one_byte(store: Path, shard: int, array: str = "position") -> None:
    """Changes one byte of the first chunk of an array, which holds the shard's first tubelets."""
    path = min((store / "shards" / f"{shard:05d}.zarr" / array).glob("c.*"))
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
