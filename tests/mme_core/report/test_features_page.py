import numpy as np
import pytest
import zarr
from made_up_runs import CLASSES, features

from mme_core.errors import UsageError
from mme_core.report.features_page import (
    chosen_queries,
    features_page,
    is_features,
    nearest,
    read_features,
)

LABELS = [0, 1, 2] * 5
IDS = [f"{number}<b>.mp4" for number in range(15)]


@pytest.fixture
def file(tmp_path):
    return features(tmp_path / "f.npz", IDS, LABELS)


def test_nearest_videos_are_of_the_same_direction(file):
    found = nearest(read_features(file), [0, 4], 3)
    assert found.shape == (2, 3)
    assert {video % 3 for video in found[0]} == {0} and 0 not in found[0]
    assert {video % 3 for video in found[1]} == {1} and 4 not in found[1]


def test_page_shows_neighbours_with_pictures(file):
    asked = []

    def picture(name):
        asked.append(name)
        return None if name == IDS[1] else np.full((40, 60, 3), 99, np.uint8)

    page = features_page(read_features(file), "f.npz", picture)
    assert set(asked) <= set(IDS) and "<b>.mp4" not in page
    assert page.count('class="mine"') == 15 and 'class="blank"' in page
    assert 'class="right"' in page and "data:image/webp" in page
    assert "100.0%" in page  # the nearest neighbour has the same class
    assert "28.6%" in page  # of two videos: 4 of the 14 others
    assert "the file is empty" in page


def test_zarr_and_npz_are_read_alike(file, tmp_path):
    group = zarr.open_group(tmp_path / "f.zarr", mode="w")
    with np.load(file) as values:
        group.create_array("features", data=values["features"])
        group.create_array("label", data=values["label"])
        about = {"ids": IDS, "class_names": list(CLASSES), "config": ""}
        group.attrs.update(about | {"not_read": values["not_read"].tolist()})
    one, other = read_features(file), read_features(tmp_path / "f.zarr")
    assert (one.vectors == other.vectors).all() and one.ids == other.ids
    assert one.not_read == other.not_read == [("x.mp4", "the file is empty")]
    assert is_features(file) and is_features(tmp_path / "f.zarr") and not is_features(tmp_path)


def test_queries_take_each_class_in_turn(file):
    chosen = chosen_queries(read_features(file), 6)
    assert [video % 3 for video in chosen] == [0, 1, 2, 0, 1, 2]
    assert len(set(chosen)) == 6


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(UsageError, match=r"x\.npz: is not what `mme features` writes"):
        read_features(tmp_path / "x.npz")
    with pytest.raises(UsageError, match=r"y\.npz: no such file; check the path$"):
        read_features(tmp_path / "y.npz")
