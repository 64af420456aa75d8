"""What commands say about the weights that `init` names."""

import pytest
from runs import run

from train.engine.checkpoint import checkpoints
from train.recipes.pretraining import ModelConfig
from train.recipes.weights import read_encoder, read_init


def warnings(init, capsys):
    read_encoder(str(init), ModelConfig(), 0)
    return capsys.readouterr().err


@pytest.mark.parametrize("length", ["optim.steps=2", "optim.steps=null optim.epochs=2"])
def test_a_run_that_is_not_finished_is_named(demo_store, tmp_path, capsys, length):
    """Six videos in batches of two are three steps an epoch."""
    every = ["checkpoint.every=1", "checkpoint.keep=9", "data.batch_size=2"]
    run(demo_store, tmp_path, *length.split(), *every)
    capsys.readouterr()
    assert warnings(tmp_path, capsys) == ""
    last, first = checkpoints(tmp_path)[0], checkpoints(tmp_path)[-1]
    steps = int(last.stem.removeprefix("step-"))
    for path in checkpoints(tmp_path)[:-1]:
        path.unlink()
    assert warnings(tmp_path, capsys) == (
        f"warning: the run {tmp_path} is not finished: these are its weights after step 1 of "
        f"{steps}\n"
    )
    assert warnings(first, capsys) == ""  # a checkpoint that was chosen


def test_other_processes_do_not_repeat_the_warning(demo_store, tmp_path, capsys, monkeypatch):
    run(demo_store, tmp_path, "optim.steps=2", "checkpoint.every=1")
    checkpoints(tmp_path)[0].unlink()
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    assert read_init(str(tmp_path)) is not None
    assert capsys.readouterr().err == ""
