"""Clips that cannot be read: named, counted, stood in for, and the run ends in order."""

import shutil

import pytest
import runs
import torch
from damage import flip_bytes, flip_one_byte, repair, write_shards
from runs import losses

from mme_core.clips.dataset import ClipDataset
from mme_core.errors import MMEError
from mme_core.weights.run_folder import read_metrics
from train.data.standins import StandIns
from train.engine import checkpoint
from train.engine.loop import Loop


@pytest.fixture(scope="module")
def whole(demo_store, tmp_path_factory):
    """A store of three shards, two videos in each."""
    return write_shards(demo_store.parent / "videos", tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def training(store, out, *words):
    return runs.training(store, out, "data.resident=false", *words)


def run(store, out, *words):
    return runs.run(store, out, "data.resident=false", *words)


def batch_of(clips, *keys):
    return clips.__getitems__(keys).tensors()


def test_the_same_clip_stands_in_every_time(store):
    flip_bytes(store, 1)
    data = ClipDataset(store, frames=4, image_size=32, seed=3)
    clips = StandIns(data, budget=5, full=True)
    batch = batch_of(clips, (7, 2))
    failed = batch.pop("failed")
    assert 2 in failed and set(failed) <= {2, 3} and "00001.zarr" in failed[2]
    number = int(batch["video"])
    assert number not in (2, 3)
    again, own = batch_of(clips, (7, 2)), data.fetch((7, number))
    assert not batch_of(clips, (7, number))["failed"]
    for name, value in own.items():
        assert torch.equal(batch[name], value) and torch.equal(again[name], value)
    stand_ins = {int(batch_of(clips, (epoch, 2))["video"]) for epoch in range(20)}
    assert stand_ins == {0, 1, 4, 5}


def test_one_flipped_byte_costs_only_clips_that_hold_it(store):
    flip_one_byte(store, 1)
    clips = StandIns(ClipDataset(store, frames=4, image_size=32, seed=3), budget=5, full=True)
    drawn = [batch_of(clips, (epoch, 2)) for epoch in range(12)]
    failed = [batch["failed"] for batch in drawn if batch["failed"]]
    assert 0 < len(failed) < 12 and all(set(reasons) == {2} for reasons in failed)
    assert all((int(batch["video"]) == 2) != bool(batch["failed"]) for batch in drawn)


def test_items_without_a_sample_are_replaced_or_left_out(store):
    flip_bytes(store, 1)
    data = ClipDataset(store, frames=4, image_size=32, crops=2)
    keys = [(0, video) for video in (2, 4, 3, 5)]
    full, readable = (batch_of(StandIns(data, 0, full=full), *keys) for full in (True, False))
    assert full["video"].tolist() == [4, 4, 5, 5, 4, 4, 5, 5]
    assert readable["video"].tolist() == [4, 4, 5, 5]
    for name, value in data.fetch((0, 4)).items():
        assert torch.equal(full[name][4:6], value) and torch.equal(readable[name][:2], value)
    assert set(full["failed"]) == set(readable["failed"]) == {2, 3}
    assert list(batch_of(StandIns(data, 0, full=True), (0, 2))) == ["failed"]


@pytest.mark.parametrize("damage", ["flipped bytes", "removed shard"])
def test_training_goes_on_without_a_shard(store, tmp_path, capsys, damage):
    process = training(store, tmp_path / "run", "data.workers=0")
    if damage == "flipped bytes":
        flip_bytes(store, 1)
    else:
        shutil.rmtree(store / "shards" / "00001.zarr")
    assert process.run() == 0
    said = capsys.readouterr().out
    assert said.count("another video stands in") == 2
    assert read_metrics(tmp_path / "run")[-1]["bad"] == 2


def test_losses_do_not_depend_on_workers_or_a_resume(store, tmp_path, monkeypatch):
    flip_bytes(store, 1)
    words = ["optim.steps=12", "checkpoint.every=2"]
    expected = losses(run(store, tmp_path / "whole", *words, "data.workers=0"))
    assert losses(run(store, tmp_path / "two", *words, "data.workers=2")) == expected

    step, done = Loop._step, []

    def interrupted(loop, batches):
        done.append(loop.done)
        if len(done) == 8:
            raise KeyboardInterrupt
        return step(loop, batches)

    monkeypatch.setattr(Loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training(store, tmp_path / "cut", *words, "data.workers=0").run()
    monkeypatch.undo()
    rows = run(store, tmp_path / "cut", *words, "data.workers=0")
    assert losses(rows) == expected and rows[-1]["bad"] == 2


@pytest.mark.parametrize("budget", [0, 1])
def test_a_spent_budget_saves_and_resumes_after_repair(store, tmp_path, budget):
    words = ["data.workers=0", f"data.bad_budget={budget}", "optim.steps=40"]
    flip_bytes(store, 1)
    with pytest.raises(MMEError) as caught:
        training(store, tmp_path / "run", *words).run()
    text = str(caught.value)
    assert "\n" not in text and f"data.bad_budget={budget}" in text
    assert f"`mme repair {store}`" in text and "shards/00001.zarr" in text
    saved = checkpoint.load_last(tmp_path / "run", pytest.fail)["step"]
    assert 0 < saved < 40 and f"saved after step {saved}" in text
    repair(store)
    rows = run(store, tmp_path / "run", *words)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 41))
    assert rows[-1]["bad"] == 0


def test_a_store_without_a_readable_clip_ends_at_once(store, tmp_path):
    for shard in range(3):
        flip_bytes(store, shard)
    with pytest.raises(MMEError, match=r"^no video can be read: [^\n]*mme repair"):
        training(store, tmp_path / "run", "data.workers=0").run()


def test_training_videos_of_the_knn_are_not_counted_as_held_out(store, whole, tmp_path, capsys):
    flip_bytes(store, 1)
    row = run(store, tmp_path / "run", f"val_store={whole}", "data.workers=0")[-1]
    assert "knn" in row and row["val_bad"] == 0
    assert capsys.readouterr().out.count("left out of the evaluation") == 2


def test_an_evaluation_leaves_out_what_it_cannot_read(store, whole, tmp_path, capsys):
    flip_bytes(store, 1)
    words = [f"val_store={store}", "eval.every=2", "data.workers=0"]
    rows = run(whole, tmp_path / "run", *words)
    held_out = [row for row in rows if "val_loss" in row]
    assert len(held_out) > 1 and {row["val_bad"] for row in held_out} == {2}
    assert capsys.readouterr().out.count("left out of the evaluation") == 2
    for shard in (0, 2):
        flip_bytes(store, shard)
    row = run(whole, tmp_path / "none", *words)[-1]
    assert row["val_bad"] == 6 and "val_loss" not in row
