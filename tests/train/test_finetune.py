import json
import os
import random
import signal

import numpy as np
import pytest
import torch
from labelled import with_unfit_stride, write_set
from safetensors.torch import load_file

from mme_core.errors import MMEError, UsageError
from mme_core.model import build_pretraining_model
from mme_core.weights.run_folder import read_metrics
from train import finetune
from train.engine import checkpoint
from train.engine.distributed import connect
from train.engine.loop import Loop
from train.objective import classification

SMALL = [
    "init=none",
    "device=cpu",
    "data.dataset=folder",
    "data.workers=0",
    "data.stride=1",
    "model.size=tiny",
    "model.depth=1",
    "model.frames=4",
    "model.image_size=32",
    "model.drop_path=0.1",
    "data.batch_size=4",
    "optim.lr=0.02",
    "optim.warmup_epochs=0",
    "augment.flip=false",
    "eval.clips=2",
    "eval.crops=1",
    "log.every=1",
]


def words(root, out, *more):
    return [*SMALL, f"data.root={root}", f"out={out}", *more]


def losses(run):
    return [row["loss"] for row in read_metrics(run) if "loss" in row]


def test_rates_of_a_step_follow_the_layers(labelled_set, tmp_path):
    config = finetune.loading.load(finetune.FinetuneConfig, words(labelled_set, tmp_path), "", "")
    ranks = connect("cpu")
    loop = Loop(config, ranks, finetune.Finetuning(config, ranks).task)
    loop.schedule.step_update(0)
    # 2 videos a step: 0.02 · 2 / 256; one block: head 1, block 0.75, patches 0.75²
    rates = {group["lr_scale"]: group["lr"] for group in loop.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([0.75**2, 0.75, 1.0])
    for scale, rate in rates.items():
        assert rate == pytest.approx(scale * 0.02 * 2 / 256)


@pytest.fixture(scope="module")
def finished(labelled_set, tmp_path_factory):
    """A run with everything on, from pre-trained weights."""
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    model = build_pretraining_model("tiny", depth=1, frames=4, image_size=32)
    recipe = {"model": {"frames": 4, "image_size": 32}}
    torch.save({"model": model.state_dict(), "config": recipe}, folder / "pretrained.pt")
    extra = [f"init={folder / 'pretrained.pt'}", "optim.epochs=2", "ema=0.9", "checkpoint.every=4"]
    assert finetune.main(words(labelled_set, folder / "run", *extra)) == 0
    return folder


def test_a_run_leaves_what_it_promises(finished):
    run = finished / "run"
    rows = read_metrics(run)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "val_top1" in row] == [6]
    assert rows[-1]["final_videos"] == rows[-1]["final_asked"] == 6
    assert json.loads((run / "evaluation.json").read_text())["top1"] == rows[-1]["final_top1"]
    for name in ("predictions.csv", "per_class.csv", "confusion.png", "config.yaml"):
        assert (run / name).stat().st_size > 0
    state = checkpoint.load_last(run, pytest.fail)
    average, last = load_file(run / "model.safetensors"), state["model"]
    assert torch.equal(average["head.weight"], state["ema"]["head.weight"])
    assert not torch.equal(average["head.weight"], last["head.weight"])


def test_the_same_command_again_changes_nothing(finished, labelled_set, capsys):
    run = finished / "run"
    rows, before = read_metrics(run), load_file(run / "model.safetensors")
    extra = [f"init={finished / 'pretrained.pt'}", "optim.epochs=2", "ema=0.9"]
    extra += ["checkpoint.every=4"]
    assert finetune.main(words(labelled_set, finished / "run", *extra)) == 0
    after = load_file(finished / "run" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_metrics(run) == rows
    assert f"2 classes; weights of step {rows[-1]['step']}" in capsys.readouterr().out


def test_a_stopped_run_ends_with_the_same_numbers(finished, labelled_set, tmp_path, monkeypatch):
    extra = [f"init={finished / 'pretrained.pt'}", "optim.epochs=2", "ema=0.9"]
    command = words(labelled_set, tmp_path, *extra, "checkpoint.every=4")
    step = Loop._step

    def signalled(loop, batches):
        if loop.done == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(loop, batches)

    monkeypatch.setattr(Loop, "_step", signalled)
    assert finetune.main(command) == 75
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 6
    monkeypatch.undo()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)  # whatever the generators held
    assert finetune.main(command) == 0
    whole, resumed = (
        load_file(folder / "model.safetensors") for folder in (finished / "run", tmp_path)
    )
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    assert losses(tmp_path) == losses(finished / "run")


def test_a_killed_run_that_augments_on_the_device_ends_the_same(
    demo_store, held_out_store, tmp_path, monkeypatch
):
    def run(name, *more):
        stores = [f"store={demo_store}", f"val_store={held_out_store}", f"out={tmp_path / name}"]
        recipe = ["data.dataset=null", "data.stride=null", "augment.flip=true", "optim.steps=4"]
        recipe += ["eval.every=0", "checkpoint.every=2", "augment.place=device"]
        assert finetune.main([*SMALL, *recipe, *stores, *more]) == 0
        return load_file(tmp_path / name / "model.safetensors")

    def killed(loop, batches):
        if loop.done == 3:
            raise RuntimeError("killed")
        return step(loop, batches)

    whole = run("whole", "data.workers=1")
    step = Loop._step
    monkeypatch.setattr(Loop, "_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        run("resumed")
    monkeypatch.undo()
    resumed = run("resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    run("workers", "augment.place=workers")
    workers, device = (losses(tmp_path / name) for name in ("workers", "whole"))
    assert workers == pytest.approx(device, abs=1e-3) and workers != device


def test_final_evaluation_is_stopped_at_once_and_resumed(labelled_set, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not reached")

    command = words(labelled_set, tmp_path, "optim.steps=1", "eval.every=0")
    monkeypatch.setattr(finetune, "evaluate", interrupt)
    assert finetune.main(command) == 75
    assert not (tmp_path / "evaluation.json").exists()
    monkeypatch.undo()
    assert finetune.main(command) == 0
    assert (tmp_path / "evaluation.json").exists()


def test_it_learns(tmp_path):
    root = write_set(tmp_path / "set", train=12, val=8, coloured=True)
    plain = ["augment.rand_augment=null", "augment.erase=0", "augment.mixup=0", "augment.cutmix=0"]
    plain += ["augment.scale=[0.9,1.0]", "data.crops=1", "optim.epochs=16", "optim.lr=0.03"]
    plain += ["data.batch_size=8", "log.every=20", "eval.every=0"]
    assert finetune.main(words(root, tmp_path / "run", *plain)) == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["top1"] == 1.0, result


def test_gradient_accumulation_keeps_the_step(labelled_set, tmp_path):
    """Two micro-batches of 2 clips take the step of one of 4, where nothing is drawn."""
    still = ["augment.mixup=0", "augment.cutmix=0", "augment.erase=0", "model.drop_path=0"]
    still += ["optim.steps=3", "eval.every=0"]
    split = ["data.batch_size=2", "optim.accumulate=2"]
    assert finetune.main(words(labelled_set, tmp_path / "one", *still)) == 0
    assert finetune.main(words(labelled_set, tmp_path / "two", *still, *split)) == 0
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), abs=1e-5)


# steps that are not finite


def spoil(monkeypatch, at):
    """The loss of micro-batch number `at` is not a number."""
    calls, mixing = [], classification.Mixing.__call__

    def spoilt(self, batch):
        calls.append(batch["video"].unique().tolist())
        mixed = mixing(self, batch)
        return mixed | {"clip": mixed["clip"] * (float("nan") if len(calls) == at else 1)}

    monkeypatch.setattr(classification.Mixing, "__call__", spoilt)
    return calls


def test_a_step_that_is_not_finite_is_skipped(labelled_set, tmp_path, monkeypatch):
    calls = spoil(monkeypatch, at=2)
    command = words(labelled_set, tmp_path, "optim.steps=4", "eval.every=0")
    assert finetune.main(command) == 0
    rows = read_metrics(tmp_path)
    (skipped,) = [row for row in rows if row.get("event") == "skipped"]
    ids = sorted(f"train/{side}/{i}.mp4" for side in ("left", "right") for i in range(6))
    assert skipped["step"] == 2 and skipped["videos"] == [ids[video] for video in calls[1]]
    assert [row["step"] for row in rows if "loss" in row] == [1, 3, 4]
    assert rows[-2]["skipped"] == 1
    weights = checkpoint.load_last(tmp_path, pytest.fail)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_spent_budget_ends_the_run(labelled_set, tmp_path, monkeypatch):
    spoil(monkeypatch, at=2)
    with pytest.raises(MMEError, match=r"step 2 skipped.*left.*nonfinite_budget=0"):
        finetune.main(words(labelled_set, tmp_path, "nonfinite_budget=0"))


def test_checkpoints_of_older_runs_are_resumed(labelled_set, tmp_path):
    command = words(labelled_set, tmp_path, "eval.every=0")
    assert finetune.main([*command, "optim.steps=2"]) == 0
    (path,) = checkpoint.checkpoints(tmp_path)
    state = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in state.items() if k not in ("rng", "skipped")}, path)
    assert finetune.main([*command, "optim.steps=3", "resume=force"]) == 0
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 3


def test_a_checkpoint_of_other_classes_is_refused(labelled_set, tmp_path):
    command = words(labelled_set, tmp_path, "eval.every=0", "optim.steps=2")
    assert finetune.main(command) == 0
    (path,) = checkpoint.checkpoints(tmp_path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "class_names": ["up", "down"]}, path)
    with pytest.raises(UsageError, match="was trained on other classes: up, down"):
        finetune.main(command)


# unreadable and wrong input


def test_an_unreadable_training_video_is_reported_and_stood_in_for(tmp_path, capsys):
    root = write_set(tmp_path / "set", train=4, val=1)
    (root / "train" / "left" / "0.mp4").write_bytes(b"no video")
    assert finetune.main(words(root, tmp_path / "run", "optim.epochs=1")) == 0
    said = capsys.readouterr().out
    assert "another video stands in for train/left/0.mp4" in said
    assert read_metrics(tmp_path / "run")[-2]["bad"] == 1


def test_more_unreadable_videos_than_the_budget_end_the_run(tmp_path):
    root = write_set(tmp_path / "set", train=4, val=1)
    for side in ("left", "right"):
        (root / "train" / side / "0.mp4").write_bytes(b"no video")
    with pytest.raises(MMEError, match=r"^2 videos cannot be read.*bad_budget=1; saved after step"):
        finetune.main(words(root, tmp_path / "run", "data.bad_budget=1"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_first_batch_without_a_readable_video_ends_the_run(tmp_path, workers):
    root = write_set(tmp_path / "set", train=2, val=1)
    for path in (root / "train").rglob("*.mp4"):
        path.write_bytes(b"no video")
    extra = [f"data.workers={workers}", "optim.epochs=1"]
    with pytest.raises(MMEError, match=r"^no video can be read: [^\n]*; mend or replace train/"):
        finetune.main(words(root, tmp_path / "run", *extra))


WRONG = {
    "unknown key": (["data.strid=2"], "data.strid is not a key.*data.stride"),
    "no videos": (["data.root=/nowhere"], "/nowhere"),
    "no labels given": (["data.dataset=null"], "either as store=.*or as data.dataset="),
    "both given": (["store=x", "val_store=y"], "either as store="),
    "odd frames": (["model.frames=5"], "model.frames=5 must be even"),
    "too few videos": (["data.batch_size=64"], "12 videos do not fill one step"),
    "crops": (["data.crops=3"], "data.crops=3 must divide data.batch_size=4"),
    "policy": (["augment.rand_augment=magic"], "augment.rand_augment=magic"),
    "sampling": (["data.sampling=sparse"], "data.sampling=sparse is not one of"),
    "scale": (["augment.scale=[0.5]"], "augment.scale"),
    "erasing": (["augment.erase=3"], "augment.erase=3.0 must be between 0 and 1"),
    "drop path": (["model.drop_path=1.5"], "model.drop_path=1.5 must be between"),
    "average": (["ema=2"], "ema=2.0 must be between"),
    "views": (["eval.batch=0"], "eval.batch=0 must be at least 1"),
    "no weights": (["init=/nowhere.pt"], "no such file of weights"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_explained_before_anything_is_written(labelled_set, tmp_path, case):
    extra, message = WRONG[case]
    with pytest.raises(UsageError, match=message):
        finetune.main(words(labelled_set, tmp_path / "run", *extra))
    assert not (tmp_path / "run").exists()


def test_held_out_videos_of_an_unfit_stride_are_refused_first(labelled_set, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "open_sources", with_unfit_stride(finetune.open_sources))
    with pytest.raises(UsageError, match=r"data\.stride=2 cannot be read from a store"):
        finetune.main(words(labelled_set, tmp_path / "run", "data.stride=2"))
    assert not (tmp_path / "run").exists()


def test_a_held_out_class_that_was_not_trained_is_named(tmp_path):
    root = write_set(tmp_path, train=2, val=1)
    train, val = tmp_path / "train.csv", tmp_path / "val.csv"
    train.write_text("".join(f"train/left/{i}.mp4 0\ntrain/right/{i}.mp4 1\n" for i in range(2)))
    val.write_text("val/left/0.mp4 0\nval/right/0.mp4 3\n")
    extra = ["data.dataset=csv", f"data.root={train}", f"data.val_root={val}"]
    with pytest.raises(UsageError, match=r"classes that the model does not know: 3;.*leave"):
        finetune.main(words(root, tmp_path / "run", *extra))


def test_unlabelled_videos_are_named(tmp_path):
    root = write_set(tmp_path, train=2, val=1)
    (tmp_path / "l.csv").write_text("train/left/0.mp4 0\ntrain/left/1.mp4 -1\n")
    extra = ["data.dataset=csv", f"data.root={tmp_path / 'l.csv'}"]
    with pytest.raises(UsageError, match=r"1 training videos have no label.*train/left/1\.mp4"):
        finetune.main(words(root, tmp_path / "run", *extra))


def test_a_video_shorter_than_the_clip_is_padded(tmp_path):
    """12 frames, a clip of 4 at stride 8: as published, its last frame fills the clip."""
    root = write_set(tmp_path / "set", train=2, val=1)
    extra = ["data.stride=8", "optim.epochs=1"]
    assert finetune.main(words(root, tmp_path / "run", *extra)) == 0


def test_another_recipe_in_the_same_folder_is_refused(finished, labelled_set):
    with pytest.raises(UsageError, match=r"holds another run.*optim\.lr"):
        finetune.main(words(labelled_set, finished / "run", "optim.lr=1"))
