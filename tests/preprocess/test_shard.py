"""A shard stores the longest part of a video, and blames a video for its own faults alone."""

import fsspec
import numpy as np
import pytest
from motion import render, translation
from odd_videos import write_parts

from mme_core.datasets import VideoItem
from mme_core.errors import StoreError
from mme_core.extract.kept_flow import FlowFile
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.store.table import read_attributes
from mme_core.store.target_store import open_or_create_store
from preprocess.jobs import ShardJob
from preprocess.shard import write_shard

SPEC = TargetSpec(stride=2, length=3, short_side=48, long_side=48, flow="dis-ultrafast")
MOVING = render(translation(1.5, 0), 24, 64, 96, finest=6)


def test_only_tubelets_of_the_longest_part_are_stored(tmp_path):
    small = MOVING[:9, :48, :64]
    write_parts(tmp_path / "0.ts", [MOVING])
    write_parts(tmp_path / "1.ts", [small, MOVING])
    write_parts(tmp_path / "2.ts", [MOVING])
    items = tuple(VideoItem(name, f"{tmp_path}/{name}") for name in ("0.ts", "1.ts", "2.ts"))
    url = str(tmp_path / "store")
    open_or_create_store(url, SPEC, "folder", None, ())
    reports = []
    write_shard(ShardJob(0, items, SPEC, url, str(tmp_path), 60.0), reports.append)
    assert [r["outcome"]["status"] for r in reports if "outcome" in r] == ["ok"] * 3
    store = TargetStore(url)
    assert list(store.videos["count"]) == [6, 6, 6] and list(store.videos["frames"]) == [24] * 3
    whole, part = store.read(0, 0, 6), store.read(1, 0, 6)
    assert (whole.valid == part.valid).all()
    assert np.abs(whole.displacement - part.displacement).max() < 0.1
    assert "frames 9 … 32 of 33" in str(store.videos[1]["warnings"])
    assert list(store.videos["first_frame"]) == [0, 9, 0]
    rows = read_attributes(open_place(url), 0)["videos"]
    assert ["first_frame" in row for row in rows] == [False, True, False]


def test_a_full_disk_is_not_blamed_on_the_only_video_of_a_server(tmp_path, monkeypatch):
    url = str(tmp_path / "store")
    open_or_create_store(url, SPEC, "folder", None, ())
    write_parts(tmp_path / "0.ts", [MOVING])
    fsspec.filesystem("memory").put(str(tmp_path / "0.ts"), "/alone/0.ts")
    item = VideoItem("0.ts", "memory://alone/0.ts")

    def fill(_file, _flow):
        raise StoreError("cannot write to flow-00000.h5: No space left on device")

    monkeypatch.setattr(FlowFile, "add", fill)
    job = ShardJob(0, (item,), SPEC, url, str(tmp_path), 60.0, keep_flow=True)
    with pytest.raises(StoreError, match="No space left"):
        write_shard(job, lambda _: None)
