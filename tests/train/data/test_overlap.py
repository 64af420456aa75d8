"""Held-out videos that are training videos are found, wherever and under whichever name."""

import shutil

import pytest
from labelled import write_square
from stores import write_store

from mme_core.datasets import VideoItem
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from train.data import overlap
from train.data.overlap import check_overlap, find_overlap, trained_videos
from train.data.sources import open_sources
from train.recipes.classification import SplitDataConfig

SPEC = TargetSpec(stride=2, short_side=32, long_side=48, length=2, flow="dis-ultrafast")


def items(*paths):
    return [VideoItem(f"{path.parent.name}/{path.name}", str(path), 0) for path in paths]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Four videos of different motion in folders named a, b, c and d, all called 0.mp4."""
    root = tmp_path_factory.mktemp("overlap")
    return [write_square(root / name / "0.mp4", 1 + i, i) for i, name in enumerate("abcd")]


def test_equal_paths_are_found(videos):
    found = find_overlap(items(*videos[:3]), items(*videos[2:]))
    assert found.same == {"c/0.mp4": "c/0.mp4"}


def test_copies_and_links_are_found(videos, tmp_path):
    shutil.copy(videos[0], tmp_path / "copy.mp4")
    (tmp_path / "link.mp4").symlink_to(videos[1])
    (tmp_path / "hard.mp4").hardlink_to(videos[2])
    held_out = items(*(tmp_path / f"{name}.mp4" for name in ("copy", "link", "hard")), videos[3])
    found = find_overlap(items(*videos[:3]), held_out)
    twins = [found.same.get(item.id) for item in held_out]
    assert twins == ["a/0.mp4", "b/0.mp4", "c/0.mp4", None]


def test_equal_ids_of_other_videos_are_no_overlap(videos, tmp_path):
    other = write_square(tmp_path / "a" / "0.mp4", -3, 9)
    assert not find_overlap(items(videos[0]), items(other)).same


def test_files_that_are_missing_or_empty_are_no_overlap(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "void.mp4").touch()
    train = items(tmp_path / "empty.mp4", tmp_path / "gone.mp4")
    assert not find_overlap(train, items(tmp_path / "void.mp4", tmp_path / "away.mp4")).same


def test_targets_tell_whether_stores_share_videos(videos, tmp_path):
    train = TargetStore(write_store(tmp_path / "train", videos[:3], SPEC))
    renamed = tmp_path / "z" / "1.mp4"
    renamed.parent.mkdir()
    shutil.copy(videos[1], renamed)
    other = write_square(tmp_path / "a" / "0.mp4", -3, 9)  # the id of a training video
    val = TargetStore(write_store(tmp_path / "val", [videos[2], renamed, other, videos[3]], SPEC))
    assert find_overlap(train, val).same == {"c/0.mp4": "c/0.mp4", "z/1.mp4": "b/0.mp4"}


def test_a_partial_overlap_of_large_stores_is_counted_in_full(tmp_path, monkeypatch):
    """Of the sample, videos 0, 2 and 4, two are equal."""
    names = [f"{number}.mp4" for number in range(6)]
    train = [write_square(tmp_path / "t" / "a" / name, 1, i) for i, name in enumerate(names)]
    val = [write_square(tmp_path / "v" / "a" / name, -1, 50 + i) for i, name in enumerate(names)]
    for number in (0, 2, 3):
        shutil.copy(train[number], val[number])
    stores = [
        TargetStore(write_store(tmp_path / name, paths, SPEC))
        for name, paths in (("train", train), ("val", val))
    ]
    monkeypatch.setattr(overlap, "_MOST_READ", 3)
    assert sorted(find_overlap(*stores).same) == ["a/0.mp4", "a/2.mp4", "a/3.mp4"]


def test_ids_alone_are_said_where_contents_cannot_be_compared(videos, tmp_path):
    store = TargetStore(write_store(tmp_path / "store", videos[:2], SPEC))
    text = check_overlap(store, items(*videos[1:]), "")
    assert text.startswith("1 of 3 held-out videos have the ids of training videos (b/0.mp4)")


def test_a_partial_overlap_is_counted(videos):
    text = check_overlap(items(*videos[:2]), items(*videos[1:]), "mend")
    assert text.startswith("1 of 3 held-out videos are training videos (b/0.mp4)")
    assert not check_overlap(items(*videos[:2]), items(*videos[2:]), "mend")


def test_one_store_for_both_is_refused(labelled_store):
    with pytest.raises(UsageError, match=r"^all 6 held-out videos are training videos .*val_store"):
        open_sources(SplitDataConfig(), str(labelled_store), str(labelled_store))


@pytest.mark.parametrize(("frames", "root"), [("store", None), ("video", "/")])
def test_a_copied_store_is_refused(labelled_store, tmp_path, frames, root):
    shutil.copytree(labelled_store, tmp_path / "copy")
    data = SplitDataConfig(frames=frames, root=root)
    with pytest.raises(UsageError, match="all 6 held-out videos are training videos"):
        open_sources(data, str(labelled_store), str(tmp_path / "copy"))


def test_one_list_for_both_is_refused(labelled_set, tmp_path):
    (tmp_path / "train.csv").write_text(f"{labelled_set}/train/left/0.mp4 0\n")
    data = SplitDataConfig(dataset="csv", root=str(tmp_path / "train.csv"))
    with pytest.raises(UsageError, match="all 1 held-out videos are training videos"):
        open_sources(data, None, None)


def test_no_split_at_all_is_refused(labelled_set):
    data = SplitDataConfig(dataset="folder", root=str(labelled_set))
    data.train_split = data.val_split = None
    with pytest.raises(UsageError, match=r"all 18 held-out videos are .*data\.val_split"):
        open_sources(data, None, None)


def test_part_of_the_held_out_videos_is_named(labelled_set, tmp_path, capsys):
    (tmp_path / "l.csv").write_text("train/left/0.mp4 0\nval/left/0.mp4 0\n")
    (tmp_path / "train").symlink_to(labelled_set / "train")
    (tmp_path / "val").symlink_to(labelled_set / "val")
    (tmp_path / "t.csv").write_text("train/left/0.mp4 0\ntrain/left/1.mp4 0\n")
    data = SplitDataConfig(dataset="csv", root=str(tmp_path / "t.csv"))
    data.val_root = str(tmp_path / "l.csv")
    open_sources(data, None, None)
    assert "warning: 1 of 2 held-out videos are training videos" in capsys.readouterr().err


def test_a_recipe_names_the_training_videos(labelled_set, labelled_store):
    data = {"dataset": "folder", "root": str(labelled_set), "train_split": "train"}
    assert len(trained_videos({"data": data})) == 12
    assert trained_videos({"store": str(labelled_store), "data": {}}).url == str(labelled_store)
    assert trained_videos({}) is None
    assert trained_videos({"store": "/nowhere", "data": {}}) is None
    assert trained_videos({"store": "s3://somebody/elses", "data": {}}) is None
