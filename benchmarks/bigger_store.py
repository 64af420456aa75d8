"""Copies a small store's shards until it has enough videos for a measurement.

    python benchmarks/bigger_store.py STORE OUT --videos 512

A copy of a video has the id N/ID, with N the number of the copy. A loader that reads the result
meets as many bytes as with a real store of that size.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mme_core.store import TargetStore
from mme_core.store.layout import STORE, shard_name
from mme_core.store.seal import blank, seal, unseal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", type=int, default=512)
    args = parser.parse_args()
    store = multiply(args.store, args.out, args.videos)
    print(f"{store.url}: {len(store.videos)} videos")


def multiply(source: Path, out: Path, videos: int) -> TargetStore:
    """A store of at least `videos` videos in the folder `out`, which must not exist."""
    out.mkdir(parents=True)
    shutil.copy(source / STORE, out / STORE)
    table = TargetStore(source).videos
    shards = sorted(set(table["shard"].tolist()))
    copies = -(-videos // len(table))
    for copy in range(copies):
        for number, shard in enumerate(shards):
            folder = out / shard_name(copy * len(shards) + number)
            shutil.copytree(source / shard_name(shard), folder)
            _rename_videos(folder / "zarr.json", copy)
    return TargetStore(out)


def _rename_videos(path: Path, copy: int) -> None:
    document, _ = unseal(path.read_bytes())
    attributes = document["attributes"]
    for row in attributes["videos"]:
        row["id"] = f"{copy}/{row['id']}"
    attributes.update(blank())
    path.write_bytes(seal(document))


if __name__ == "__main__":
    main()
