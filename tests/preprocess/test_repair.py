"""After any damage, `mme repair` restores the store's bytes."""

import json
import shutil

import fsspec
import pytest
from small_files import SPEC, write_tree

from mme_core import cli
from mme_core.io.place import open_place
from mme_core.store import TargetStore
from mme_core.store.layout import INDEX, LEDGER, shard_name
from mme_core.store.table import read_attributes
from mme_core.store.target_store import read_store_file
from preprocess.lock import StoreLock
from preprocess.verify_shard import check_shard


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
    """Two drivers with different --videos-per-shard could once cause this."""
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


HOLLOW = {
    "the shard's table": lambda store: store / shard_name(1) / "zarr.json",
    "an array's metadata": lambda store: store / shard_name(1) / "shape" / "zarr.json",
    "an array's file": chunk,
}


@pytest.mark.parametrize("emptied", HOLLOW)
def test_a_hollow_shard_stays_while_its_videos_are_missing(emptied, store, tmp_path, capsys):
    HOLLOW[emptied](store).write_bytes(b"")
    before, ledger = contents(store), (store / LEDGER).read_bytes()
    (tmp_path / "empty").mkdir()
    assert cli.main(["repair", str(store), "--root", str(tmp_path / "nowhere")]) == 2
    assert contents(store) == before
    assert cli.main(["repair", str(store), "--root", str(tmp_path / "empty")]) == 1
    assert f"{shard_name(1)} stays as it is" in capsys.readouterr().out
    assert contents(store) == before and (store / LEDGER).read_bytes() == ledger


@pytest.mark.parametrize("damage", ["a hollow file", "a shard that is gone"])
def test_no_video_is_lost_while_another_is_missing(damage, made, store, tmp_path, capsys):
    DAMAGES[damage](store)
    before, ledger = contents(store), (store / LEDGER).read_bytes()
    root = shutil.copytree(made[0], tmp_path / "videos")
    number = 2 if damage == "a shard that is gone" else 1
    table = read_attributes(open_place(made[1]), number)
    missing = root / table["videos"][0]["path"]
    missing.unlink()
    assert cli.main(["repair", str(store), "--root", str(root)]) == 1
    assert f"{missing}: no such file; put the video back" in capsys.readouterr().out
    assert contents(store) == before and (store / LEDGER).read_bytes() == ledger
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == contents(made[1])
    assert cli.main(["verify", str(store)]) == 0


def test_every_emptied_file_of_a_shard_is_damage(store):
    about = read_store_file(open_place(store))
    for path in sorted(path for path in (store / shard_name(1)).rglob("*") if path.is_file()):
        data = path.read_bytes()
        path.write_bytes(b"")
        assert check_shard(str(store), 1, about["spec"], 2, True).problems, path
        path.write_bytes(data)
    assert not check_shard(str(store), 1, about["spec"], 2, True).problems


def test_files_of_killed_writers_stay_until_the_videos_are_there(store, tmp_path):
    flip(chunk(store))
    aside = store / f".{LEDGER}.{32 * '0'}"
    aside.write_text("half a row")
    assert cli.main(["repair", str(store), "--root", str(tmp_path / "nowhere")]) == 2
    assert aside.exists()
    assert cli.main(["repair", str(store)]) == 0
    assert not aside.exists()


def test_an_unfinished_shard_behind_a_url_is_removed(made, tmp_path, capsys):
    url = f"memory://{tmp_path}/store"
    fs, top = fsspec.core.url_to_fs(url)
    fs.put(str(made[1]), top, recursive=True)
    fs.pipe_file(f"{top}/{shard_name(9)}/shape/c.0.0.0.0.0.0", b"x")
    assert cli.main(["repair", "--dry-run", url]) == 0
    assert f"{url}: nothing to make anew" in capsys.readouterr().out
    assert cli.main(["repair", url]) == 0
    assert not fs.exists(f"{top}/{shard_name(9)}")


@pytest.mark.parametrize("damage", ["a flipped byte of an array", "a shard that is gone"])
def test_moved_videos_are_read_below_root(damage, made, store):
    moved = shutil.copytree(made[0], store.parent / "moved")
    DAMAGES[damage](store)
    assert cli.main(["repair", str(store), "--root", str(moved)]) == 0
    assert contents(store) == contents(made[1])


def test_a_dry_run_says_that_a_store_is_whole(store, capsys):
    assert cli.main(["repair", "--dry-run", str(store)]) == 0
    assert capsys.readouterr().out == f"{store}: nothing to make anew\n"


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


def test_a_store_behind_a_url_is_repaired(made, tmp_path):
    url = f"memory://{tmp_path}/store"
    fs, top = fsspec.core.url_to_fs(url)
    fs.put(str(made[1]), top, recursive=True)
    damaged = next(path for path in fs.find(f"{top}/{shard_name(1)}/shape") if "c.0" in path)
    fs.pipe_file(damaged, fs.cat_file(damaged)[:-1])
    fs.pipe_file(f"{top}/{shard_name(0)}/extra", b"x")
    assert cli.main(["repair", url]) == 0
    found = {path[len(top) + 1 :]: fs.cat_file(path) for path in fs.find(f"{top}/shards")}
    assert found == contents(made[1])


def test_repair_is_refused_while_a_driver_works(store, capsys):
    flip(chunk(store))
    before = contents(store)
    with StoreLock(open_place(store)):
        assert cli.main(["repair", str(store)]) == 1
    assert "is being written by process" in capsys.readouterr().err
    assert contents(store) == before


def test_a_store_made_with_a_plugin_is_repaired(made, tmp_path, monkeypatch):
    (tmp_path / "still_plugin.py").write_text(
        "import numpy as np\n\n\ndef flow(first, second):\n"
        "    return np.zeros((*first.shape[:2], 2), np.float32)\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "folder", "--root", str(made[0]), "--serial", "--store", "plugged"]
    spec = [word for word in SPEC if not word.startswith("spec.flow=")]
    assert cli.main(["flows", *words, *spec, "spec.flow=still_plugin:flow"]) == 0
    plugged = tmp_path / "plugged"
    before = contents(plugged)
    shutil.rmtree(plugged / shard_name(1))
    assert cli.main(["repair", "plugged"]) == 0
    assert contents(plugged) == before


@pytest.fixture
def rescued(made, tmp_path):
    """A copy of the store in which the bad video, replaced by a good one, is stored in shard 3."""
    root = shutil.copytree(made[0], tmp_path / "videos")
    store = shutil.copytree(made[1], tmp_path / "store")
    shutil.copy(root / "a" / "000.mp4", root / "b" / "bad.mp4")
    words = ["--dataset", "folder", "--root", str(root), "--serial", "--retry-quarantined"]
    assert cli.main(["flows", *words, "--store", str(store), *SPEC]) == 0
    assert (store / shard_name(3)).exists()
    return root, store


def quarantining_shard(store):
    return next(n for n in range(3) if read_attributes(open_place(store), n)["quarantined"])


def test_a_video_that_was_stored_at_the_second_try_stays(rescued):
    _, store = rescued
    before = contents(store)
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == before
    assert "b/bad.mp4" in TargetStore(store).videos["id"]


def test_a_remade_shard_does_not_store_what_another_holds(rescued):
    root, store = rescued
    flip(chunk(store, quarantining_shard(store)))
    assert cli.main(["repair", str(store), "--root", str(root)]) == 0
    assert len(TargetStore(store).videos) == 6
    assert cli.main(["verify", "--deep", str(store)]) == 0


def test_the_undamaged_one_of_two_equal_shards_stays(made, store, tmp_path):
    shutil.copytree(store / shard_name(0), store / shard_name(7))
    flip(chunk(store, 0))
    (tmp_path / "empty").mkdir()
    assert cli.main(["repair", str(store), "--root", str(tmp_path / "empty")]) == 0
    stored = contents(made[1])
    moved = {name.replace(shard_name(0), shard_name(7)): data for name, data in stored.items()}
    assert contents(store) == moved


def test_a_damaged_copy_stays_while_the_other_cannot_be_made_anew(store, tmp_path, capsys):
    shutil.copytree(store / shard_name(0), store / shard_name(7))
    flip(chunk(store, 0))
    flip(chunk(store, 7), 30)
    before = contents(store)
    (tmp_path / "empty").mkdir()
    assert cli.main(["repair", str(store), "--root", str(tmp_path / "empty")]) == 1
    assert f"{shard_name(7)} stays as it is: {shard_name(0)} has" in capsys.readouterr().out
    assert contents(store) == before


def test_a_folder_that_is_not_there_changes_nothing(store, tmp_path, capsys):
    shutil.copytree(store / shard_name(0), store / shard_name(7))
    flip(chunk(store))
    before = contents(store)
    assert cli.main(["repair", str(store), "--root", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'nowhere'}, the folder of the videos, is not there" in error
    assert "--root" in error and contents(store) == before


def test_a_lost_ledger_is_not_written_without_the_folder(made, store, monkeypatch, capsys):
    (store / LEDGER).unlink()
    assert cli.main(["repair", str(store)]) == 0
    assert "the ledger is not written, because nothing says in which" in capsys.readouterr().out
    assert not (store / LEDGER).exists()
    monkeypatch.chdir(made[0].parent)
    assert cli.main(["repair", str(store), "--root", made[0].name]) == 0
    assert "6 videos in the ledger" in capsys.readouterr().out
    rows = list(map(json.loads, (store / LEDGER).read_text().splitlines()))
    assert {row["path"] for row in rows} == {str(made[0] / row["id"]) for row in rows}


def test_videos_of_an_unknown_folder_are_not_read_in_the_current_one(
    made, store, monkeypatch, capsys
):
    (store / LEDGER).unlink()
    flip(chunk(store))
    before = contents(store)
    monkeypatch.chdir(made[0])  # videos of these names are here
    assert cli.main(["repair", str(store)]) == 1
    output = capsys.readouterr().out
    assert f"{shard_name(1)} stays as it is: nothing says in which folder its videos" in output
    assert contents(store) == before
    assert cli.main(["repair", str(store), "--root", "."]) == 0
    assert contents(store) == contents(made[1])
    assert cli.main(["verify", str(store)]) == 0


def test_a_shard_of_another_specification_is_made_anew(made, store, tmp_path):
    words = ["--dataset", "folder", "--root", str(made[0]), "--serial", "--videos-per-shard", "2"]
    other = [*SPEC[:-1], "spec.flow=farneback"]
    assert cli.main(["flows", *words, "--store", str(tmp_path / "o"), *other, "--limit", "2"]) == 0
    shutil.rmtree(store / shard_name(0))
    shutil.copytree(tmp_path / "o" / shard_name(0), store / shard_name(0))
    assert cli.main(["verify", str(store)]) == 1
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == contents(made[1])
