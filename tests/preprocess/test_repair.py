"""`mme repair`: after any damage, the store has its old bytes again."""

import json
import shutil

import pytest
from small_files import SPEC, write_tree

from mme_core import cli
from mme_core.store import TargetStore
from mme_core.store.layout import INDEX, LEDGER, shard_name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of three shards, one with a quarantined video, and its videos."""
    root = write_tree(tmp_path_factory.mktemp("videos"), 5)
    (root / "b" / "bad.mp4").write_bytes(b"no video")
    store = root.parent / f"{root.name}-store"
    words = ["--dataset", "folder", "--root", str(root), "--videos-per-shard", "2", "--serial"]
    assert cli.main(["flows", *words, "--store", str(store), *SPEC]) == 0
    return root, store


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "store")


def contents(store):
    files = (path for path in (store / "shards").rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def flip(path, position=20):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def chunk(store, shard=1):
    return next((store / shard_name(shard) / "shape").glob("c.*"))


DAMAGES = {
    "a flipped byte of an array": lambda store: flip(chunk(store)),
    "a flipped byte of a table": lambda store: flip(store / shard_name(2) / "zarr.json", 200),
    "a file that is gone": lambda store: chunk(store).unlink(),
    "a shard that is gone": lambda store: shutil.rmtree(store / shard_name(2)),
    "a hollow file": lambda store: chunk(store).write_bytes(b""),
    "an extra file": lambda store: (store / shard_name(0) / "extra").write_text("x"),
    "everything gone but the ledger": lambda store: [
        shutil.rmtree(store / "shards"),
        (store / INDEX).unlink(),
    ],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_repair_restores_the_same_bytes(damage, made, store):
    DAMAGES[damage](store)
    assert contents(store) != contents(made[1])
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == contents(made[1])
    assert cli.main(["verify", "--deep", str(store)]) == 0


def test_repair_leaves_an_intact_store_unchanged(made, store, capsys):
    assert cli.main(["repair", str(store)]) == 0
    assert "0 shards made anew" in capsys.readouterr().out
    assert contents(store) == contents(made[1])


def test_repair_rewrites_a_damaged_ledger_and_index(made, store):
    flip(store / LEDGER, 40)
    flip(store / INDEX, 40)
    assert cli.main(["repair", str(store)]) == 0
    ids = {json.loads(line)["id"] for line in (store / LEDGER).read_text().splitlines()}
    assert len(ids) == 6
    assert cli.main(["verify", str(store)]) == 0


def test_videos_stored_twice_are_stored_once(made, store):
    """As after two drivers with different --videos-per-shard."""
    shutil.copytree(store / shard_name(0), store / shard_name(7))
    assert cli.main(["verify", str(store)]) == 1
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == contents(made[1])


def test_a_shard_stays_while_its_video_is_missing(made, store, capsys):
    flip(chunk(store))
    before = contents(store)
    elsewhere = store.parent / "elsewhere"
    elsewhere.mkdir()
    assert cli.main(["repair", str(store), "--root", str(elsewhere)]) == 1
    assert "stays as it is" in capsys.readouterr().out
    assert contents(store) == before


def test_moved_videos_are_read_below_root(made, store):
    moved = shutil.copytree(made[0], store.parent / "moved")
    flip(chunk(store))
    assert cli.main(["repair", str(store), "--root", str(moved)]) == 0
    assert contents(store) == contents(made[1])


def test_a_dry_run_changes_nothing(store, capsys):
    flip(chunk(store))
    before = contents(store)
    assert cli.main(["repair", "--dry-run", str(store)]) == 0
    assert f"{shard_name(1)}: make it anew" in capsys.readouterr().out
    assert contents(store) == before


def test_a_repaired_store_can_be_read(store):
    flip(chunk(store))
    cli.main(["repair", str(store)])
    opened = TargetStore(store)
    for video in range(len(opened.videos)):
        opened.read(video, 0, 1)
