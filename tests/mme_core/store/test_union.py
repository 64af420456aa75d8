"""Two stores with canvases of different size, read as one."""

import dataclasses

import numpy as np
import pytest
from made_up_targets import SPEC, make_store, row, tubelets

from mme_core.clips.dataset import ClipDataset, collate
from mme_core.errors import StoreError, UsageError
from mme_core.store import StoreUnion, TargetStore
from mme_core.store.target_store import open_or_create_store
from mme_core.store.writer import ShardWriter

WIDE = dataclasses.replace(SPEC, long_side=128, frames="lz4")


@pytest.fixture
def small(tmp_path):
    make_store(tmp_path / "small", ({"a.mp4": 11}, {"b.mp4": 9}))
    return tmp_path / "small"


@pytest.fixture
def wide(tmp_path):
    """A store of one video with a canvas of 4 × 8 patches, called as one of the other store."""
    url = tmp_path / "wide"
    open_or_create_store(url, WIDE, "folder", "train", ["z"])
    with ShardWriter(url, 0, WIDE) as writer:
        writer.begin_video()
        for tubelet in tubelets(7, 10, wp=8, spec=WIDE):
            writer.append(tubelet)
        writer.end_video(row("a.mp4", 10, wp=8, spec=WIDE))
    return url


def test_union_numbers_videos_and_shards_one_store_after_the_other(small, wide):
    union = StoreUnion([small, wide])
    assert union.videos["id"].tolist() == ["small/a.mp4", "small/b.mp4", "wide/a.mp4"]
    assert union.videos["shard"].tolist() == [0, 1, 2]
    assert union.videos["wp"].tolist() == [5, 5, 8]
    assert union.class_names == () and set(union.videos["label"]) == {-1}
    store, number = union.locate(2)
    assert (store.url, number) == (str(wide), 0)
    window = union.read_coded(2, 1, 4)
    expected = TargetStore(wide).read_coded(0, 1, 4)
    np.testing.assert_array_equal(window.position, expected.position)
    assert window.frames == expected.frames


def test_clips_of_both_canvases_fill_one_batch(small, wide):
    clips = ClipDataset(StoreUnion([small, wide]), frames=8, image_size=64)
    batch = collate([clips[0, video] for video in range(3)])
    assert batch["frames"].shape == (3, 8, 64, 64, 3)
    stored = TargetStore(wide).read_coded(0, int(batch["start"][2]), 4).position
    left = int(batch["origin"][2, 0]) // 16
    np.testing.assert_array_equal(batch["position"][2].numpy(), stored[:, :, left : left + 4])
    assert batch["video"].tolist() == [0, 1, 2]


def test_stores_that_disagree_are_named(small, tmp_path):
    other = dataclasses.replace(SPEC, stride=2, hop=4)
    make_store(tmp_path / "other", spec=other)
    with pytest.raises(StoreError, match=r"other has spec.stride=2 and .*small has spec.stride=4"):
        StoreUnion([small, tmp_path / "other"])
    make_store(tmp_path / "bare", spec=dataclasses.replace(SPEC, frames="none"))
    with pytest.raises(StoreError, match=r"bare has spec.frames=none and .*has spec.frames=jpeg"):
        StoreUnion([small, tmp_path / "bare"])
    with pytest.raises(UsageError, match="named twice"):
        StoreUnion([small, small])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_descriptors_that_one_store_lacks_are_named(small, tmp_path, order):
    make_store(tmp_path / "cells", spec=dataclasses.replace(SPEC, cells=("hog",)))
    stores = [small, tmp_path / "cells"]
    with pytest.raises(
        StoreError, match=r"spec\.cells=(none|hog) and .* has spec\.cells=(none|hog): "
    ):
        StoreUnion([stores[number] for number in order])


def test_stores_may_differ_in_how_points_are_followed(small, tmp_path):
    make_store(tmp_path / "other", spec=dataclasses.replace(SPEC, flow_weights="raft.pth"))
    for order in ([small, tmp_path / "other"], [tmp_path / "other", small]):
        assert len(StoreUnion(order).videos) == 4


def test_stores_of_one_name_are_told_apart(small, tmp_path):
    make_store(tmp_path / "deep" / "small", ({"a.mp4": 11},))
    ids = StoreUnion([small, tmp_path / "deep" / "small"]).videos["id"]
    assert ids[0] == f"{small}/a.mp4" and len(set(ids)) == 3


def test_union_reads_no_video_files(small, wide):
    with pytest.raises(UsageError, match="source=video reads the videos of one store"):
        ClipDataset(StoreUnion([small, wide]), source="video", frames=8, image_size=64)
