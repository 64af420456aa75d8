"""A shard with an empty file goes only where the run makes all of its videos again."""

import shutil

import pytest
from small_files import SPEC, write_tree

from mme_core import cli
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.store.layout import INDEX, LEDGER, shard_name
from preprocess.hollow import find_hollow

HASHED = TargetSpec.from_overrides(SPEC)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of three shards of two videos, and its videos."""
    root = write_tree(tmp_path_factory.mktemp("videos") / "v", 6)
    store = root.parent / "store"
    assert flows(root, store) == 0
    return root, store


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "store")


def flows(root, store, *more):
    words = ["--root", str(root), "--store", str(store), "--videos-per-shard", "2", "--serial"]
    return cli.main(["flows", "--dataset", "folder", *words, *SPEC, *more])


def contents(store):
    files = (path for path in (store / "shards").rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def empty(store, number, name="*/c.*"):
    next((store / shard_name(number)).glob(name)).write_bytes(b"")


FILES = ["shape/c.*", "shape/zarr.json", "zarr.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_run_for_all_videos_makes_it_anew_and_says_so(name, made, store, capsys):
    empty(store, 1, name)
    assert flows(made[0], store, "--dry-run") == 0
    assert "to do        2 videos in 1 shard" in capsys.readouterr().out
    assert contents(store) != contents(made[1])
    assert flows(made[0], store) == 0
    output = capsys.readouterr().out
    assert f"{shard_name(1)} has an empty file" in output
    assert "remove it and make its 2 videos again" in output
    assert contents(store) == contents(made[1])
    assert cli.main(["verify", str(store)]) == 0


@pytest.mark.parametrize("name", FILES)
def test_a_run_for_fewer_videos_leaves_it_and_goes_on(name, made, store, capsys):
    empty(store, 1, name)
    shutil.rmtree(store / shard_name(0))
    before = contents(store)
    assert flows(made[0], store, "--limit", "3") == 0  # the third is in shard 1
    output = capsys.readouterr().out
    assert f"{shard_name(1)} has an empty file, as a power cut leaves it, and stays" in output
    assert "this run is not for 1 of its 2 videos; `mme repair" in output
    assert "to do        2 videos in 1 shard" in output
    assert before.items() < contents(store).items()
    assert cli.main(["verify", str(store)]) == 1
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == contents(made[1])
    assert cli.main(["verify", str(store)]) == 0


def test_it_stays_while_a_video_has_left_the_data_set(made, store, tmp_path, capsys):
    root = shutil.copytree(made[0], tmp_path / "v")
    empty(store, 1, "zarr.json")
    next(path for path in sorted(root.rglob("*.mp4"))[2:]).unlink()
    for _ in range(2):
        assert flows(root, store) == 0
        assert "this run is not for 1 of its 2 videos" in capsys.readouterr().out
    assert cli.main(["repair", str(store), "--root", str(made[0])]) == 0
    assert contents(store) == contents(made[1])


def test_the_index_names_its_videos_where_the_ledger_is_lost(made, store, capsys):
    TargetStore(store)
    empty(store, 1, "zarr.json")
    (store / LEDGER).unlink()
    assert flows(made[0], store, "--limit", "3") == 0
    output = capsys.readouterr().out
    assert "not for 1 of its 2 videos" in output and "to do        0 videos" in output
    assert cli.main(["repair", str(store)]) == 0
    assert contents(store) == contents(made[1])


def test_where_nothing_names_its_videos_a_run_for_the_whole_data_set_makes_them(
    made, store, capsys
):
    empty(store, 1, "zarr.json")
    (store / LEDGER).unlink()
    (store / INDEX).unlink()
    kept = find_hollow(open_place(store), HASHED, str(made[0]), set(), whole=False)
    assert kept.remake == [] and "nothing says which videos it held" in kept.lines[0]
    assert flows(made[0], store) == 0
    assert "make the videos it held again" in capsys.readouterr().out
    assert contents(store) == contents(made[1])


def test_it_stays_where_too_many_videos_failed_before(made, tmp_path):
    root = shutil.copytree(made[0], tmp_path / "v")
    (root / "a" / "000.mp4").write_bytes(b"")
    assert flows(root, tmp_path / "store") == 0
    empty(tmp_path / "store", 1)
    before = contents(tmp_path / "store")
    assert flows(root, tmp_path / "store", "--max-failures", "0") == 3
    assert contents(tmp_path / "store") == before
