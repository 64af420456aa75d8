"""A store that has lost a shard is refused: a run would train or test on part of it."""

import json
import shutil
from dataclasses import replace

import pytest

from mme_core.errors import StoreError, UsageError
from mme_core.store import TargetStore
from mme_core.store.layout import LEDGER
from train import pretrain
from train.data import stores
from train.data.sources import open_source
from train.data.stores import check_complete, check_root, check_same_spec, open_training
from train.recipes.classification import LabelledDataConfig


@pytest.fixture
def store(demo_store, tmp_path):
    """A store of one shard whose ledger names 12."""
    copied = shutil.copytree(demo_store, tmp_path / "store")
    rows = [{"id": f"lost/{number}.mp4", "status": "ok", "shard": number} for number in range(12)]
    (copied / LEDGER).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return copied


def test_lost_shards_are_named_with_the_mend(store):
    with pytest.raises(StoreError) as caught:
        check_complete(TargetStore(store))
    text = str(caught.value)
    assert "has lost shards/00001.zarr, " in text and "00008.zarr and 3 more: run" in text
    assert "00000.zarr" not in text and f"mme repair {store}" in text and "\n" not in text


def test_store_without_a_ledger_is_read(store):
    (store / LEDGER).unlink()
    check_complete(TargetStore(store))


@pytest.mark.parametrize("key", ["store", "val_store"])
def test_pretraining_refuses_a_lost_shard(demo_store, store, tmp_path, key):
    stores = {"store": demo_store, key: store}
    words = [f"{name}={url}" for name, url in stores.items()]
    with pytest.raises(StoreError, match="has lost"):
        pretrain.main(["--config", "tiny.yaml", *words, f"out={tmp_path / 'run'}"])


def test_labelled_videos_of_a_lost_shard_are_missed(store):
    with pytest.raises(StoreError, match="has lost"):
        open_source(LabelledDataConfig(), str(store), root=None, split=None)


def test_stores_share_the_limit_of_the_staging_folder(demo_store, tmp_path, monkeypatch):
    limits = []

    def opened(url, folder, limit_gb):
        limits.append(limit_gb)
        return TargetStore(url)

    monkeypatch.setattr(stores, "open_staged", opened)
    copy = shutil.copytree(demo_store, tmp_path / "copy")
    open_training([str(demo_store), str(copy)], str(tmp_path / "disk"), 3.0)
    assert limits == [1.5, 1.5]


def test_a_held_out_store_may_code_frames_in_another_way(demo_store):
    train, val = TargetStore(demo_store), TargetStore(demo_store)
    val.spec = replace(val.spec, frames="lz4", jpeg_quality=75)
    check_same_spec(train, val)
    for other in (replace(val.spec, length=4), replace(val.spec, frames="none")):
        val.spec = other
        with pytest.raises(StoreError, match="make the held-out store with the specification"):
            check_same_spec(train, val)


def test_a_folder_that_nobody_reads_is_refused(demo_store):
    store = TargetStore(demo_store)
    with pytest.raises(UsageError, match=r"^data\.root=/videos is not read, since .* absolute"):
        check_root(store, "/videos", "video")
    with pytest.raises(UsageError, match=r"^data\.root=/videos is not read, since the frames"):
        check_root(store, "/videos", "store")
    store.videos["path"][0] = "a/0.mp4"
    check_root(store, "/videos", "video")
    check_root(store, None, "store")
