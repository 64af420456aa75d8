import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial

import fsspec
import numpy as np
import pytest
from motion import render, translation, write_video
from stores import write_store

from mme_core import cli
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.weights.run_folder import read_metrics
from train.data import staging
from train.data.staging import StagedStore, copies_folder, main

# the tests must not depend on how full the machine's disk is
copy_shards = partial(staging.copy_shards, keep_free=0)
open_staged = partial(staging.open_staged, keep_free=0)

SPEC = TargetSpec(stride=2, length=4, short_side=64, long_side=64, flow="dis-ultrafast")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of three shards of a video each."""
    root = tmp_path_factory.mktemp("made")
    url = root / "store"
    for number in range(3):
        path = root / "videos" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, render(translation(1, 0), 12, 64, 64, seed=number))
        part = write_store(root / f"part{number}", [path], SPEC)
        if number == 0:
            part.rename(url)
            continue
        (part / "shards" / "00000.zarr").rename(url / "shards" / f"{number:05d}.zarr")
    return url


@pytest.fixture
def store(made, tmp_path):
    """The same, for one test to damage."""
    return shutil.copytree(made, tmp_path / "store")


def clips(store):
    return [store.read_coded(video, 0, 2) for video in range(len(store.videos))]


def same(a, b):
    for x, y in zip(clips(a), clips(b)):
        np.testing.assert_array_equal(x.shape, y.shape)
        np.testing.assert_array_equal(x.position, y.position)
        assert x.frames == y.frames


def break_shard(store, number):
    """Leaves what a store's opening reads; its arrays are gone."""
    for array in (store / "shards" / f"{number:05d}.zarr").iterdir():
        if array.is_dir():
            shutil.rmtree(array)


def test_clips_come_from_the_copies_and_are_the_same(store, tmp_path):
    before = TargetStore(store)
    expected = clips(before)
    staged = copy_shards(store, tmp_path / "disk")
    assert (staged.shards, staged.of) == (3, 3)
    same(StagedStore(store, tmp_path / "disk"), before)
    for number in range(3):
        break_shard(store, number)
    for a, b in zip(clips(StagedStore(store, tmp_path / "disk")), expected):
        np.testing.assert_array_equal(a.position, b.position)


def test_shards_that_are_not_copied_are_read_from_the_store(store, tmp_path):
    size = copy_shards(store, tmp_path / "all").size
    staged = copy_shards(store, tmp_path / "disk", limit_gb=0.7 * size / 1e9)
    assert 0 < staged.shards < 3 and staged.size <= 0.7 * size
    same(StagedStore(store, tmp_path / "disk"), TargetStore(store))
    # with more room the copying goes on where it stopped
    first = copies_folder(str(store), tmp_path / "disk") / "shards" / "00000.zarr"
    inode = first.stat().st_ino
    reports = []
    assert copy_shards(store, tmp_path / "disk", report=reports.append).shards == 3
    assert len(reports) == 3 - staged.shards and first.stat().st_ino == inode
    assert reports[-1].size == size


def test_a_full_disk_is_not_filled_further_and_the_run_says_so(store, tmp_path, capfd):
    """The disk itself stands in for a full one: all of it is to stay free."""
    disk = tmp_path / "disk"
    staged = copy_shards(store, disk, keep_free=1)
    assert staged.shards == 0 and re.search(r"disk has \d.* GB free.*100% of it", staged.full)
    same(staging.open_staged(store, disk, keep_free=1), TargetStore(store))
    said = ""
    deadline = time.monotonic() + 60
    while "0 of 3 shards are copied: the disk of" not in said and time.monotonic() < deadline:
        time.sleep(0.1)
        said += capfd.readouterr().err
    assert f"the disk of {disk} has" in said and "read from the store itself" in said


def test_a_shard_written_anew_is_copied_anew(store, tmp_path):
    copy_shards(store, tmp_path / "disk")
    shutil.rmtree(store / "shards" / "00000.zarr")
    shutil.copytree(store / "shards" / "00001.zarr", store / "shards" / "00000.zarr")
    os.utime(store / "shards" / "00000.zarr" / "zarr.json", ns=(1, 1))
    same(StagedStore(store, tmp_path / "disk"), TargetStore(store))
    assert not (copies_folder(str(store), tmp_path / "disk") / "shards" / "00000.zarr").exists()
    reports = []
    copy_shards(store, tmp_path / "disk", report=reports.append)
    assert len(reports) == 1


def test_a_copy_that_was_broken_off_leaves_nothing_to_read(store, tmp_path):
    asked = iter([True] * 3 + [False])
    staged = copy_shards(store, tmp_path / "disk", go_on=lambda: next(asked))
    assert staged.shards == 0
    copies = copies_folder(str(store), tmp_path / "disk")
    (copies / "shards" / ".partial-of-a-killed-process").mkdir()
    same(StagedStore(store, tmp_path / "disk"), TargetStore(store))
    copy_shards(store, tmp_path / "disk")
    names = sorted(path.name for path in (copies / "shards").iterdir())
    assert names == ["00000.zarr", "00001.zarr", "00002.zarr"]


def test_only_one_process_copies(store, tmp_path):
    copies = copies_folder(str(store), tmp_path / "disk")
    copies.mkdir(parents=True)
    with (copies / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert copy_shards(store, tmp_path / "disk") is None
    assert copy_shards(store, tmp_path / "disk").shards == 3


def test_a_store_behind_a_url(store, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(store), "/staging/store", recursive=True)
    try:
        staged = copy_shards("memory://staging/store", tmp_path / "disk")
        assert staged.shards == 3
        memory.rm("/staging/store/shards/00001.zarr/position", recursive=True)
        same(StagedStore("memory://staging/store", tmp_path / "disk"), TargetStore(store))
    finally:
        memory.rm("/staging", recursive=True)


def test_two_stores_of_one_name_do_not_mix(store, tmp_path):
    other = copies_folder(str(tmp_path / "other" / "store"), tmp_path / "disk")
    assert copies_folder(str(store), tmp_path / "disk") != other


def test_a_run_reads_while_a_process_of_its_own_copies(store, tmp_path):
    opened = open_staged(store, tmp_path / "disk")
    same(opened, TargetStore(store))
    last = copies_folder(str(store), tmp_path / "disk") / "shards" / "00002.zarr"
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    break_shard(store, 2)
    assert len(opened.read_coded(2, 0, 2).frames) == 4


def test_the_copying_ends_with_the_run(store, tmp_path):
    command = [sys.executable, "-m", "train.data.staging", str(store), str(tmp_path / "disk")]
    command += ["--keep-free", "0"]
    subprocess.run([*command, "--with", "1"], check=False, timeout=60)
    assert not list((tmp_path / "disk").glob("*/shards/*"))


def test_the_command_says_what_it_does(store, tmp_path, capsys):
    words = [str(store), str(tmp_path / "disk"), "--keep-free", "0"]
    assert main([*words, "--limit-gb", "0.000001"]) == 0
    said = capsys.readouterr().err
    assert "0 of 3 shards are copied: 0.00 GB are used of the limit of 1e-06 GB" in said
    assert main(words) == 0
    assert "3 of 3 shards" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "disk")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"data\.stage: cannot write to .*file"):
        open_staged(store, tmp_path / "file")


def test_copies_are_not_written_into_a_store(store):
    with pytest.raises(UsageError, match=rf"^data\.stage={store} lies in the store"):
        staging.open_staged(store, store)


def test_a_run_learns_the_same_from_staged_shards(demo_store, tmp_path):
    """Also with what else a recipe says of its data: shards shuffled, zooms, two crops a clip."""
    words = ["--config", "tiny.yaml", f"store={demo_store}", "data.batch_size=4", "optim.steps=2"]
    words += ["data.shard_shuffle=true", "data.zoom=[2,4]", "data.crops=2", "device=cpu"]
    losses = []
    for extra in ([], [f"data.stage={tmp_path / 'disk'}", "data.stage_gb=1"]):
        out = tmp_path / f"run{len(extra)}"
        assert cli.main(["pretrain", *words, f"out={out}", *extra]) == 0
        losses.append([row["loss"] for row in read_metrics(out) if "loss" in row])
    assert losses[0] == losses[1] and len(losses[0]) == 2
