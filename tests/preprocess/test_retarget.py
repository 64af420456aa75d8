"""`mme flows --keep-flow` and `mme retarget`: other targets without computing flow."""

import json
import shutil

import numpy as np
import pytest
from small_files import SPEC, write_clip, write_tree

from mme_core import cli
from mme_core.errors import StoreError, UsageError
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.store.layout import shard_name
from preprocess.retarget import changed

WORDS = ["--dataset", "folder", "--videos-per-shard", "2", "--serial"]
CHANGES = ["spec.length=4", "spec.stride=1", "spec.cells=hof"]


def flows(root, store, *more):
    return cli.main(["flows", *WORDS, "--root", str(root), "--store", str(store), *SPEC, *more])


def retarget(source, store, *more):
    return cli.main(["retarget", str(source), "--store", str(store), "--serial", *CHANGES, *more])


def shards(store):
    files = (path for path in (store / "shards").rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Videos, one of them bad; a store of two shards with kept flow; its retargeted store."""
    root = write_tree(tmp_path_factory.mktemp("videos"), 3)
    (root / "b" / "bad.mp4").write_bytes(b"no video")
    store, other = root.parent / "kept", root.parent / "other"
    assert flows(root, store, "--keep-flow") == 0
    assert retarget(store, other) == 0
    return root, store, other


def test_keeping_flow_changes_no_target(made, tmp_path):
    root, store, _ = made
    assert flows(root, tmp_path / "plain") == 0
    assert shards(tmp_path / "plain") == shards(store)
    assert not (tmp_path / "plain" / "flow").exists()
    assert sorted(path.name for path in (store / "flow").iterdir()) == ["00000.h5", "00001.h5"]


def test_retargeted_videos_are_as_from_the_files(made, tmp_path):
    root, _, other = made
    exact = tmp_path / "exact"
    assert flows(root, exact, *CHANGES) == 0
    one, two = TargetStore(exact), TargetStore(other)
    assert one.spec == two.spec and one.spec.hop == 2
    for name in ("id", "path", "label", "count", "shard", "frames"):
        assert (one.videos[name] == two.videos[name]).all(), name
    for video in range(len(one.videos)):
        a, b = one.read(video, 0, 4), two.read(video, 0, 4)
        np.testing.assert_array_equal(a.frames, b.frames)
        both = a.valid & b.valid
        assert both.mean() > 0.9 * a.valid.mean() > 0
        error = np.linalg.norm(a.displacement - b.displacement, axis=-1)[both]
        assert np.median(error) < 0.05
        lengths = np.linalg.norm(a.hog, axis=-1) * np.linalg.norm(b.hog, axis=-1)
        cosine = (a.hog * b.hog).sum(-1)[lengths > 0.1] / lengths[lengths > 0.1]
        assert cosine.mean() > 0.99
        moved = np.abs(a.cells["hof"] - b.cells["hof"])[both].mean()
        assert moved < 0.1 * a.cells["hof"][both].mean()
    rows = [json.loads(line) for line in (other / "ledger.jsonl").read_text().splitlines()]
    assert {row["id"]: row["status"] for row in rows}["b/bad.mp4"] == "quarantined"


@pytest.mark.parametrize("change", ["spec.stride=1", "spec.jpeg_quality=50"])
def test_retargeted_frames_have_the_same_bytes(change, made, tmp_path):
    root, store, _ = made
    assert flows(root, tmp_path / "exact", change) == 0
    words = ["retarget", str(store), "--store", str(tmp_path / "other"), "--serial", change]
    assert cli.main(words) == 0
    for name in ("frames", "frame_ends"):
        files = [shards(tmp_path / made) for made in ("exact", "other")]
        one, two = ({key: file[key] for key in file if f"/{name}/" in key} for file in files)
        assert one == two


def test_the_same_command_resumes(made, tmp_path, capsys):
    _, store, other = made
    again = shutil.copytree(other, tmp_path / "again")
    before = shards(again)
    shutil.rmtree(again / shard_name(1))
    assert retarget(store, again) == 0
    assert "in 1 shard\n" in capsys.readouterr().out
    assert shards(again) == before
    assert cli.main(["verify", str(again)]) == 0


def test_damaged_flow_is_found_and_made_anew(made, tmp_path, capsys):
    _, store, other = made
    broken = shutil.copytree(store, tmp_path / "broken")
    before = (broken / "flow" / "00001.h5").read_bytes()
    (broken / "flow" / "00001.h5").write_bytes(before[: len(before) // 2])
    assert cli.main(["verify", str(broken)]) == 1
    assert "flow/00001.h5 is missing or damaged" in capsys.readouterr().out
    assert retarget(broken, tmp_path / "new") == 1
    assert cli.main(["repair", str(broken)]) == 0
    assert cli.main(["verify", str(broken)]) == 0
    assert shards(broken) == shards(store)
    assert (broken / "flow" / "00001.h5").read_bytes() == before
    # A retargeted store cannot be made from the videos alone.
    assert cli.main(["repair", str(other)]) == 1
    assert "run that command again" in capsys.readouterr().err


def test_flow_is_kept_at_a_file_url_too(made, tmp_path):
    root, store, other = made
    kept = tmp_path / "kept"
    assert flows(root, f"file://{kept}", "--keep-flow") == 0
    assert shards(kept) == shards(store)
    assert retarget(f"file://{kept}", tmp_path / "other") == 0
    assert shards(tmp_path / "other") == shards(other)
    assert cli.main(["verify", f"file://{kept}"]) == 0


def test_what_kept_flow_cannot_give_is_refused(made, tmp_path, capsys):
    root, store, other = made
    assert flows(root, tmp_path / "plain") == 0
    assert flows(root, tmp_path / "plain", "--keep-flow") == 2
    assert "shards without their flow" in capsys.readouterr().err
    assert retarget(tmp_path / "plain", tmp_path / "new") == 1
    assert "keeps no flow" in capsys.readouterr().err
    assert retarget(store, other, "spec.jpeg_quality=80") == 1
    assert "spec.jpeg_quality: 80 asked for, 90 in the store" in capsys.readouterr().err
    assert flows(root, other, *CHANGES) == 1
    assert "kept_flow: none asked for" in capsys.readouterr().err
    assert flows(root, "simplecache::memory://bucket/store", "--keep-flow") == 2
    assert "needs a --store on a disk" in capsys.readouterr().err


def test_a_changed_specification_keeps_the_other_fields():
    spec = TargetSpec(stride=2, flow="dis-fast", check=True)
    made = changed(spec, ["spec.stride=3", "spec.check=false"])
    assert made == TargetSpec(stride=3, hop=6, flow="dis-fast")
    assert changed(TargetSpec(stride=4, hop=4), ["spec.length=3"]).hop == 4
    with pytest.raises(UsageError, match=r"spec\.check=false"):
        changed(spec, ["spec.stride=3"])
    for word in ("spec.flow=farneback", "spec.short_side=128", "spec.patch=8"):
        with pytest.raises(UsageError, match="kept flow cannot be used"):
            changed(TargetSpec(), [word])


def test_videos_that_have_moved_are_named_before_anything_is_written(made, tmp_path, capsys):
    _, store, _ = made
    words = ["--store", str(tmp_path / "new"), "--serial", "--root", str(tmp_path / "gone")]
    assert cli.main(["retarget", str(store), *words, "spec.length=4"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'gone'}, the folder of the videos, is not there" in error
    assert not (tmp_path / "new" / "shards").exists()


LOSSES = {
    "a shard that is gone": lambda shard: shutil.rmtree(shard),
    "a shard without its table": lambda shard: (shard / "zarr.json").unlink(),
    "a shard whose table is empty": lambda shard: (shard / "zarr.json").write_bytes(b""),
}


def test_an_unknown_folder_of_the_videos_is_asked_for(made, tmp_path, monkeypatch, capsys):
    root, store, _ = made
    kept = shutil.copytree(store, tmp_path / "kept")
    (kept / "ledger.jsonl").unlink()
    monkeypatch.chdir(root)  # the paths in the store would be found here
    assert retarget(kept, tmp_path / "new") == 2
    assert "are: give it by --root" in capsys.readouterr().err
    assert not shards(tmp_path / "new")
    assert retarget(kept, tmp_path / "new", "--root", str(root)) == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_source_that_has_lost_a_shard_is_refused(loss, made, tmp_path, capsys):
    _, store, _ = made
    source = shutil.copytree(store, tmp_path / "source")
    LOSSES[loss](source / shard_name(1))
    assert retarget(source, tmp_path / "new") == 1
    error = capsys.readouterr().err
    assert f"{source} has lost {shard_name(1)}: run `mme repair {source}`" in error
    assert not (tmp_path / "new" / "shards").exists()
    assert cli.main(["repair", str(source)]) == 0
    assert retarget(source, tmp_path / "new") == 0


def test_a_folder_in_place_of_a_new_shard_is_named(made, tmp_path, capsys):
    _, store, other = made
    again = shutil.copytree(other, tmp_path / "again")
    (again / shard_name(1) / "zarr.json").unlink()
    assert retarget(store, again) == 1
    error = capsys.readouterr().err
    assert f"{again}/{shard_name(1)}: there is no zarr.json in it: remove it" in error


def test_a_stored_video_that_cannot_be_opened_stops_the_run(made, tmp_path, capsys):
    """A folder of videos may be there without its disk. The same command resumes."""
    root, store, other = made
    moved = shutil.copytree(root, tmp_path / "moved")
    table = json.loads((store / shard_name(1) / "zarr.json").read_text())["attributes"]
    missing = moved / table["videos"][0]["path"]
    aside = missing.rename(tmp_path / "aside.mp4")
    new, words = tmp_path / "new", ["--root", str(moved)]
    assert retarget(store, new, *words) == 1
    error = capsys.readouterr().err
    assert f"{missing}, whose flow is in {store}/flow/00001.h5: no such file; put the" in error
    assert not (new / shard_name(1)).exists()
    aside.rename(missing)
    assert retarget(store, new, *words) == 0
    assert shards(new) == shards(other)


def test_a_video_that_was_changed_is_quarantined(made, tmp_path):
    root, store, _ = made
    moved = shutil.copytree(root, tmp_path / "moved")
    write_clip(moved / "a" / "000.mp4", frames=20)
    assert retarget(store, tmp_path / "new", "--root", str(moved)) == 0
    reasons = TargetStore(tmp_path / "new").quarantined()
    assert "the video was changed since" in reasons["a/000.mp4"]


def test_repair_without_its_lock_leaves_the_kept_flow(made, tmp_path, monkeypatch, capsys):
    _, store, _ = made
    broken = shutil.copytree(store, tmp_path / "broken")
    shutil.rmtree(broken / shard_name(1))
    (broken / "flow" / "00001.h5").write_bytes(b"of the new owner")

    def refuse(place, token):
        raise StoreError("lost")

    monkeypatch.setattr("preprocess.repair.check_owner", refuse)
    assert cli.main(["repair", str(broken)]) == 1
    assert "lost" in capsys.readouterr().err
    assert (broken / "flow" / "00001.h5").read_bytes() == b"of the new owner"


def test_a_hollow_shard_that_the_source_has_is_made_anew(made, tmp_path, capsys):
    _, store, other = made
    copy = shutil.copytree(other, tmp_path / "other")
    shutil.copytree(copy / shard_name(1), copy / shard_name(7))
    for number in (1, 7):
        next((copy / shard_name(number) / "shape").glob("c.*")).write_bytes(b"")
    before = shards(copy)
    assert retarget(store, copy, "--root", str(tmp_path / "nowhere")) == 2
    assert shards(copy) == before
    assert retarget(store, copy) == 0
    assert f"{shard_name(1)} has an empty file" in capsys.readouterr().out
    seventh = {name: data for name, data in before.items() if shard_name(7) in name}
    assert shards(copy) == shards(other) | seventh
