"""The store behind s3://, against a local server that speaks S3."""

import time

import pytest
import s3fs
from made_up_targets import make_store, tubelets, write_shard

from mme_core.errors import StoreError
from mme_core.store import TargetStore
from mme_core.store.leftovers import leftovers, remove_leftovers
from preprocess.verify import verify_store


def test_store_works_on_s3(bucket):
    url = f"{bucket}/some/store"
    with pytest.raises(StoreError, match="does not exist"):
        TargetStore(url)
    make_store(url, [{"a": 11, "b/ü": 3}, {"c": 6}])
    store = TargetStore(url)
    assert list(store.videos["id"]) == ["a", "b/ü", "c"]
    assert store.read_coded(1, 0, 3).frames == tuple(f for t in tubelets(1, 3) for f in t.frames)
    assert verify_store(url).problems == []
    # A writer that was killed before the metadata:
    s3fs.S3FileSystem().rm(f"{url}/shards/00001.zarr/zarr.json")
    assert list(TargetStore(url).videos["id"]) == ["a", "b/ü"]
    assert leftovers(url) == ["shards/00001.zarr"] == remove_leftovers(url)
    time.sleep(1)  # S3 counts whole seconds in a file's age
    write_shard(url, 1, {"d": 6})
    assert list(TargetStore(url).videos["id"]) == ["a", "b/ü", "d"]


def test_a_damaged_object_is_named(bucket):
    url = f"{bucket}/damaged"
    make_store(url, [{"a": 3}])
    fs, file = s3fs.S3FileSystem(), f"{url}/shards/00000.zarr/valid/c.0.0.0"
    fs.pipe_file(file, fs.cat_file(file)[:-3])
    with pytest.raises(StoreError, match="array 'valid'"):
        TargetStore(url).read(0, 0, 3)
    fs.rm(file)
    with pytest.raises(StoreError, match=r"array 'valid', rows 0–2047 .*the file is missing"):
        TargetStore(url).read(0, 0, 3)
