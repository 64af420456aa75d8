"""Leftovers of killed writers and power cuts are no shards, and can be removed."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import made_up_targets
from made_up_targets import make_store, write_shard

from mme_core.io.place import open_place
from mme_core.store.layout import shard_name
from mme_core.store.leftovers import hollow_shards, leftovers, remove_leftovers
from mme_core.store.target_store import TargetStore

HELPERS = Path(made_up_targets.__file__).parent


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_leftovers_of_a_killed_writer_can_be_removed(tmp_path):
    url = make_store(tmp_path / "store", [{"a": 2}])
    script = f"""
        import os, signal
        from made_up_targets import SPEC, row, tubelets
        from mme_core.store import layout
        from mme_core.store.writer import ShardWriter
        layout.FILE_TUBELETS = 8
        writer = ShardWriter({str(url)!r}, 1, SPEC)
        writer.begin_video()
        for tubelet in tubelets(0, 20):
            writer.append(tubelet)
        writer.end_video(row("b", 20))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=HELPERS, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(TargetStore(url).videos["id"]) == ["a"]
    (left,) = leftovers(url)
    assert left.startswith(f"{shard_name(1)}.partial-") and list((url / left).rglob("c.*"))
    write_shard(url, 1, {"b": 20})
    assert remove_leftovers(url) == [left]
    assert names(url / "shards") == ["00000.zarr", "00001.zarr"]
    assert list(TargetStore(url).videos["id"]) == ["a", "b"]


def test_files_left_by_a_killed_writer_are_removed(tmp_path):
    url = make_store(tmp_path / "store", [{"a": 2}])
    kept = names(url)
    tail = 32 * "0"
    asides = [f".ledger.jsonl.{tail}", f".flows.lock.{tail}.{tail}", f".index.npz.{tail}"]
    for name in asides:
        (url / name).write_text("half a row")
    assert remove_leftovers(url) == sorted(asides)
    assert names(url) == kept


def test_a_hollow_shard_is_found_and_stays(tmp_path):
    """After a power cut, files may exist without content."""
    url = make_store(tmp_path / "store", [{"a": 2}, {"b": 2}])
    hollow = next((url / shard_name(1) / "shape").glob("c.*"))
    hollow.write_bytes(b"")
    assert leftovers(url) == remove_leftovers(url) == []
    assert hollow_shards(open_place(url)) == [1]
    hollow.with_name("zarr.json").write_bytes(b"")
    assert hollow_shards(open_place(url)) == [1]


def test_a_shard_with_an_emptied_table_is_not_read(tmp_path):
    url = make_store(tmp_path / "store", [{"a": 2}, {"b": 2}])
    (url / shard_name(1) / "zarr.json").write_bytes(bytes(100))
    assert list(TargetStore(url).videos["id"]) == ["a"]
