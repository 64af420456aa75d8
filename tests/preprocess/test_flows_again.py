"""`mme flows` on a store that exists: it resumes, grows, and heals; nothing is lost or doubled."""

import shutil

from flows_command import flows, ledger, tree
from small_files import SPEC, write_clip

from mme_core.cli import main as mme
from mme_core.io.place import open_place
from mme_core.store import TargetStore
from mme_core.store.table import lost_shards


def test_second_run_does_nothing(videos, tmp_path, capsys):
    assert flows(videos, tmp_path / "store") == 0
    before = tree(tmp_path / "store")
    assert flows(videos, tmp_path / "store") == 0
    assert tree(tmp_path / "store") == before
    assert "to do        0 videos" in capsys.readouterr().out


def test_missing_shards_are_rebuilt_with_the_same_bytes(videos, tmp_path):
    assert flows(videos, tmp_path / "store") == 0
    before = tree(tmp_path / "store/shards")
    shutil.rmtree(tmp_path / "store/shards/00001.zarr")
    assert flows(videos, tmp_path / "store") == 0
    after = tree(tmp_path / "store/shards")
    assert {path: content for path, (content, _) in after.items()} == {
        path: content for path, (content, _) in before.items()
    }
    assert len(ledger(tmp_path / "store")) == 4


def test_later_runs_add_the_new_videos(videos, tmp_path, capsys):
    store = tmp_path / "store"
    assert flows(videos, store, "--limit", 2) == 0
    assert set(TargetStore(store).videos["id"]) == {"a/000.mp4", "a/002.mp4"}
    before = tree(store / "shards")
    assert flows(videos, store) == 0
    write_clip(videos / "a/new.mp4")
    (videos / "b/001.mp4").unlink()
    assert flows(videos, store) == 0
    assert before.items() <= tree(store / "shards").items()  # nothing that existed was touched
    assert len(TargetStore(store).videos) == 5  # what is gone from the data set stays
    assert capsys.readouterr().out.count("stored       4 videos") == 2  # of the data set


def test_new_class_is_refused(videos, tmp_path, capsys):
    """Labels are numbers, so an added class would change those of the others."""
    assert flows(videos, tmp_path / "store", "--limit", 1) == 0
    write_clip(videos / "aa/new.mp4")
    assert flows(videos, tmp_path / "store") == 1
    error = capsys.readouterr().err
    assert "class_names: ['a', 'aa', 'b'] asked for, ['a', 'b'] in the store" in error


def test_quarantined_videos_are_retried_on_request(videos, tmp_path):
    store = tmp_path / "store"
    good = (videos / "b/003.mp4").read_bytes()
    (videos / "b/003.mp4").write_bytes(b"")
    (videos / "b/001.mp4").write_bytes(b"")
    assert flows(videos, store) == 0
    (videos / "b/003.mp4").write_bytes(good)
    assert flows(videos, store) == 0
    assert ledger(store)["b/003.mp4"] == "the file is empty"
    assert flows(videos, store, "--retry-quarantined") == 0
    assert ledger(store)["b/003.mp4"] == "ok"
    assert ledger(store)["b/001.mp4"] == "the file is empty"
    (store / "ledger.jsonl").unlink()
    assert flows(videos, store) == 0
    assert ledger(store)["b/003.mp4"] == "ok"
    assert sorted(TargetStore(store).videos["id"]) == ["a/000.mp4", "a/002.mp4", "b/003.mp4"]


def test_another_spec_is_refused_by_field(videos, tmp_path, capsys):
    assert flows(videos, tmp_path / "store", "--limit", 1) == 0
    before = tree(tmp_path / "store")
    other = [word.replace("stride=2", "stride=3") for word in SPEC]
    for more in ([], ["--dry-run"]):
        assert flows(videos, tmp_path / "store", *more, spec=other) == 1
        error = capsys.readouterr().err
        assert "spec.stride: 3 asked for, 2 in the store" in error
        assert "length" not in error
    assert tree(tmp_path / "store") == before


def test_a_folder_without_its_table_is_named_with_the_mend(videos, tmp_path, capsys):
    """An incomplete copy of a store has such a folder."""
    store = tmp_path / "store"
    assert flows(videos, store, "--videos-per-shard", 2) == 0
    before = tree(store / "shards" / "00000.zarr")
    (store / "shards/00001.zarr/zarr.json").unlink()
    capsys.readouterr()
    assert flows(videos, store, "--videos-per-shard", 2) == 1
    error = capsys.readouterr().err
    assert f"{store}/shards/00001.zarr: there is no zarr.json in it: run `mme repair" in error
    assert mme(["repair", str(store)]) == 0
    assert flows(videos, store, "--videos-per-shard", 2) == 0
    assert mme(["verify", str(store)]) == 0
    assert tree(store / "shards" / "00000.zarr") == before


def test_a_store_that_lost_store_json_keeps_its_shards(videos, tmp_path, capsys):
    store = tmp_path / "store"
    assert flows(videos, store) == 0
    before = tree(store)
    (store / "store.json").unlink()
    bare = tree(store)
    assert flows(videos, store, "spec.flow=dis-fast", spec=SPEC[:-1]) == 1
    assert flows(videos, store, "--dry-run", "spec.flow=dis-fast", spec=SPEC[:-1]) == 1
    error = capsys.readouterr().err
    assert error.count("shards/00000.zarr was made with another specification") == 2
    assert flows(videos, store, "--dry-run") == 0
    assert tree(store) == bare
    write_clip(videos / "a/new.mp4")
    assert flows(videos, store, "--videos-per-shard", 3) == 0
    output = capsys.readouterr().out
    assert "to do        1 video in 1 shard" in output and "(new)" not in output
    after = tree(store)
    assert {path for path in before if before[path] != after[path]} == {
        store / "store.json",
        store / "ledger.jsonl",
    }
    assert len(TargetStore(store).videos) == 5
    assert mme(["verify", str(store)]) == 0


def test_a_part_of_the_data_set_does_not_hide_a_lost_shard(videos, tmp_path, capsys):
    store = tmp_path / "store"
    assert flows(videos, store, "--videos-per-shard", 2) == 0
    before = tree(store)
    shutil.rmtree(store / "shards/00000.zarr")
    assert flows(videos, store, "--limit", 1) == 0  # one of the two
    output = capsys.readouterr().out
    assert "lost         shards/00000.zarr is not there, and this run is not for 1 video" in output
    assert (store / "shards/00002.zarr").exists()  # shard 0 is left free for what it lacks
    assert mme(["verify", str(store)]) == 1
    assert "calls 1 video stored that no shard has (a/002.mp4)" in capsys.readouterr().out
    assert lost_shards(open_place(store)) == [0]
    assert flows(videos, store) == 0
    assert mme(["verify", str(store)]) == 0
    assert len(TargetStore(store).videos) == 4 and len(ledger(store)) == 4
    assert lost_shards(open_place(store)) == []
    shutil.rmtree(store / "shards/00001.zarr")
    assert flows(videos, store) == 0
    names = [path for path in before if "00001.zarr" in str(path)]
    assert all(path.read_bytes() == before[path][0] for path in names)
    assert mme(["verify", str(store)]) == 0


def test_a_corrected_label_is_refused_before_anything_is_written(videos, tmp_path, capsys):
    store, listing = tmp_path / "store", tmp_path / "list.csv"
    good = "a/000.mp4 0\na/002.mp4 0\nb/001.mp4 1\n"
    listing.write_text(good + "b/gone.mp4 1\n")
    assert flows(videos, store, "--list", listing, dataset="csv") == 0
    listing.write_text(good.replace("a/002.mp4 0", "a/002.mp4 1") + "b/gone.mp4 0\n")
    for lost in ([], ["store.json"]):
        for name in lost:
            (store / name).unlink()
        before = tree(store)
        for more in (["--dry-run"], []):
            assert flows(videos, store, "--list", listing, *more, dataset="csv") == 1
            error = capsys.readouterr().err
            assert "stores 1 video with another label" in error
            assert "a/002.mp4: 0 in the store, 1 in the data set. Remove shards/000" in error
        assert tree(store) == before
    shutil.rmtree(store / "shards")
    assert flows(videos, store, "--list", listing, dataset="csv") == 0
    assert list(TargetStore(store).videos["label"]) == [0, 1, 1]
