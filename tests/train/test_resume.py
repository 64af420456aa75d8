"""A run that was killed ends with the numbers of the one that was not."""

import os
import pty
import random
import signal
import subprocess
import sys
import time
import weakref

import pytest
import torch
from runs import CPU, training

from mme_core import cli
from mme_core.errors import MMEError, UsageError
from mme_core.weights.run_folder import read_metrics
from train import pretrain
from train.engine import checkpoint, folder
from train.engine.distributed import Ranks
from train.engine.loop import Loop
from train.engine.signals import STOP_SIGNALS

STEPS = 40


def words(store, out, *more):
    fixed = ["log.every=1", "checkpoint.every=3", "norm.floor=0.1", "data.workers=0"]
    return ["--config", "tiny.yaml", f"store={store}", f"out={out}", *fixed, *more]


def run(store, out, *more):
    return pretrain.main(words(store, out, f"optim.steps={STEPS}", *more))


def final(out):
    state = checkpoint.load_last(out, pytest.fail)
    return state["step"], state["model"], state["optimizer"]["state"]


def same(a, b):
    (step_a, model_a, moments_a), (step_b, model_b, moments_b) = a, b
    assert step_a == step_b
    for name in model_a:
        assert torch.equal(model_a[name], model_b[name]), name
    for index in moments_a:
        for name in moments_a[index]:
            assert torch.equal(moments_a[index][name], moments_b[index][name]), name


@pytest.fixture(scope="module")
def whole(demo_store, tmp_path_factory):
    """A run that nothing interrupts; frames shuffled, so that it draws numbers as it goes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(demo_store, out, "data.shuffle_frames=true") == 0
    return out


def wait_for_step(out, step, process):
    path = out / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.005)
    pytest.fail(f"ended with status {process.returncode} before it could be killed")


def test_killed_three_times_it_ends_the_same(demo_store, whole, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mme_core", "pretrain"]
    command += words(demo_store, out, f"optim.steps={STEPS}", "data.shuffle_frames=true")
    seed = random.randrange(1000)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for low in (4, 14, 24):  # rows of metrics.jsonl; a resumed run drops those it repeats
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for_step(out, low + draw.randrange(8), process)
        time.sleep(draw.random() * 0.05)  # also in the middle of a write
        process.kill()
        process.wait()
    assert run(demo_store, out, "data.shuffle_frames=true") == 0
    same(final(out), final(whole))
    rows, expected = read_metrics(out), read_metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_saves_stops_with_75_and_the_run_goes_on_the_same(
    demo_store, whole, tmp_path, monkeypatch, number
):
    step = Loop._step

    def signalled(loop, batches):
        if loop.done == 10:
            os.kill(os.getpid(), number)
        return step(loop, batches)

    before = signal.getsignal(number)
    monkeypatch.setattr(Loop, "_step", signalled)
    options = ["data.shuffle_frames=true", "checkpoint.every=1000"]
    assert run(demo_store, tmp_path, *options) == 75
    assert signal.getsignal(number) == before
    stopped = checkpoint.load_last(tmp_path, pytest.fail)["step"]
    assert 10 < stopped < STEPS
    monkeypatch.undo()
    assert run(demo_store, tmp_path, *options) == 0
    same(final(tmp_path), final(whole))


def test_a_signal_at_the_last_step_leaves_the_evaluation_to_the_next_run(
    demo_store, held_out_store, tmp_path, monkeypatch
):
    step = Loop._step

    def signalled(loop, batches):
        if loop.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(loop, batches)

    command = words(demo_store, tmp_path, f"val_store={held_out_store}", "optim.steps=2")
    monkeypatch.setattr(Loop, "_step", signalled)
    assert pretrain.main(command) == 75
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 2
    assert not any("val_loss" in row for row in read_metrics(tmp_path))
    monkeypatch.undo()
    for _ in range(2):
        assert pretrain.main(command) == 0
    assert [row["step"] for row in read_metrics(tmp_path) if "val_loss" in row] == [2]


def test_ctrl_c_twice_ends_at_once_with_130(demo_store, tmp_path, monkeypatch):
    step = Loop._step

    def interrupted(loop, batches):
        if loop.done == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return step(loop, batches)

    monkeypatch.setattr(Loop, "_step", interrupted)
    assert cli.main(["pretrain", *words(demo_store, tmp_path)]) == 130
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 3


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_to_the_whole_job_ends_it_in_order(demo_store, tmp_path, number):
    # a terminal and Slurm signal all processes of a job, the loader's workers among them
    options = words(demo_store, tmp_path, "data.workers=1", "optim.steps=100000")
    command = [sys.executable, "-m", "mme_core", "pretrain", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    wait_for_step(tmp_path, 3, process)
    os.killpg(process.pid, number)
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == 75, said
    assert "Traceback" not in said and "leaked" not in said
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] >= 3


def test_a_run_whose_terminal_closes_saves(demo_store, tmp_path):
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "mme_core", "pretrain"]
    command += words(demo_store, tmp_path, "optim.steps=100000")
    process = subprocess.Popen(command, stdout=its_end, stderr=its_end, start_new_session=True)
    os.close(its_end)
    wait_for_step(tmp_path, 3, process)
    os.close(terminal)  # writing to it fails from now on
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 75
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] >= 3


def test_a_second_run_in_the_same_folder_is_refused(demo_store, tmp_path):
    with folder.lock(tmp_path, Ranks(0, 1, torch.device("cpu")), pytest.fail):
        with pytest.raises(UsageError, match=r"in use by another run \(process"):
            pretrain.main(words(demo_store, tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == [folder.LOCK]
    assert pretrain.main(words(demo_store, tmp_path)) == 0


def test_a_resumed_run_names_the_step_of_its_weights(demo_store, tmp_path, capsys):
    assert pretrain.main(words(demo_store, tmp_path, "optim.steps=2")) == 0
    assert "parameters, random weights;" in capsys.readouterr().out
    assert pretrain.main(words(demo_store, tmp_path, "optim.steps=3", "resume=force")) == 0
    printed = capsys.readouterr().out
    assert "parameters, weights of step 2;" in printed and "random weights" not in printed


def test_other_micro_batches_of_the_same_effective_batch_go_on(demo_store, tmp_path):
    assert pretrain.main(words(demo_store, tmp_path, "optim.steps=10")) == 0
    more = ["optim.steps=20", "resume=force"]
    with pytest.raises(UsageError, match="videos a step"):
        pretrain.main(words(demo_store, tmp_path, *more, "data.batch_size=1"))
    again = [*more, "data.batch_size=1", "optim.accumulate=2"]
    assert pretrain.main(words(demo_store, tmp_path, *again)) == 0
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 20


def test_a_resumed_run_does_not_keep_the_checkpoint_in_memory(demo_store, tmp_path, monkeypatch):
    class State(dict):
        """A dict that a weak reference can point to."""

    assert training(demo_store, tmp_path, "optim.steps=2").run() == 0
    found = checkpoint.load_last(tmp_path, pytest.fail)
    process = training(demo_store, tmp_path, "optim.steps=2")
    references = []

    def load_last(*_):
        state = State(found)
        references.append(weakref.ref(state))
        return state

    monkeypatch.setattr(checkpoint, "load_last", load_last)
    loop = Loop(process.config, CPU, process.task)
    with loop.begin():
        assert loop.done == 2 and references[0]() is None


def test_a_run_that_had_no_loss_scaler_resumes_with_one(demo_store, tmp_path):
    """`precision=auto` takes bf16 on one GPU, and fp16 with a scaler on an older one."""
    process = training(demo_store, tmp_path, "optim.steps=2")
    assert process.run() == 0
    loop = Loop(process.config, CPU, process.task)
    loop.scaler = torch.amp.GradScaler("cpu")
    loop._restore(checkpoint.load_last(tmp_path, pytest.fail))
    assert loop.done == 2 and loop.scaler.get_scale() == 2.0**16


def test_a_folder_of_another_run_is_refused_unless_told(demo_store, tmp_path):
    assert pretrain.main(words(demo_store, tmp_path)) == 0
    written = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(UsageError, match=r"optim\.lr.*resume=force"):
        pretrain.main(words(demo_store, tmp_path, "optim.lr=0.2"))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == written
    free = ["log.every=2", "checkpoint.keep=1", "data.resident=false"]
    assert pretrain.main(words(demo_store, tmp_path, *free)) == 0
    forced = words(demo_store, tmp_path, "optim.steps=12", "optim.lr=0.2", "resume=force")
    assert pretrain.main(forced) == 0
    assert read_metrics(tmp_path)[-1]["step"] == 12


def test_a_checkpoint_of_another_model_or_store_is_refused(demo_store, tmp_path):
    assert pretrain.main(words(demo_store, tmp_path / "a")) == 0
    path = checkpoint.checkpoints(tmp_path / "a")[0]
    with pytest.raises(
        UsageError,
        match=r"weights of another size.*model\.size=tiny.*its clips are 8 frames of 48 pixels",
    ):
        pretrain.main(words(demo_store, tmp_path / "b", f"init={path}", "model.size=small"))
    assert not (tmp_path / "b").exists()
    state = torch.load(path, weights_only=True)
    torch.save({**state, "spec_hashes": ["0"], "spec": {**state["spec"], "flow": "tvl1"}}, path)
    with pytest.raises(MMEError, match=r"flow: dis-ultrafast in .*, tvl1 in its store"):
        pretrain.main(words(demo_store, tmp_path / "a"))


def test_a_full_disk_ends_the_run_and_it_goes_on_from_the_checkpoint_before(
    demo_store, tmp_path, monkeypatch
):
    fsync = os.fsync

    def full(descriptor):
        if list(tmp_path.rglob("step-00000006.tmp")):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(MMEError, match=r"No space left on device.*run the same command again"):
        pretrain.main(words(demo_store, tmp_path))
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 3
    monkeypatch.undo()
    assert pretrain.main(words(demo_store, tmp_path)) == 0
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 10
