"""Shards without their store.json take no other specification."""

import pytest
from made_up_targets import SPEC, make_store

from mme_core.errors import StoreError
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store.agreement import check_shards
from mme_core.store.layout import STORE
from mme_core.store.target_store import open_or_create_store

OTHER = TargetSpec(stride=3, short_side=64, long_side=80, camera="homography")


@pytest.fixture
def bare(tmp_path):
    """A store of two shards that has lost its store.json."""
    url = make_store(tmp_path / "s", [{"a": 2}, {"b": 2}])
    (url / STORE).unlink()
    return url


def test_another_specification_is_refused_before_store_json_is_written(bare):
    message = r"00000.zarr was made with another specification .* is missing: give the specif"
    with pytest.raises(StoreError, match=message):
        open_or_create_store(bare, OTHER, "folder", "train", ["x", "y"])
    assert not (bare / STORE).exists()
    open_or_create_store(bare, SPEC, "folder", "train", ["x", "y"])
    assert (bare / STORE).exists()


@pytest.mark.parametrize("content", [b"", b"{damaged"])
def test_a_damaged_shard_says_nothing(content, bare):
    (bare / "shards/00000.zarr/zarr.json").write_bytes(content)
    check_shards(open_place(bare), SPEC.hash)
    with pytest.raises(StoreError, match=r"00001.zarr was made with another"):
        check_shards(open_place(bare), OTHER.hash)
