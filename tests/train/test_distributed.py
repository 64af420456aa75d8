"""Two processes learn what one does, stop together, and skip together."""

import re
import subprocess
import sys
from pathlib import Path

import pretrain_phases
import pytest
import torch

from mme_core import cli
from mme_core.errors import UsageError
from mme_core.weights.run_folder import read_metrics
from train import evaluate, features, pretrain, probe
from train.engine import checkpoint, distributed

PHASES = Path(pretrain_phases.__file__)


@pytest.fixture(scope="module")
def runs(demo_store, tmp_path_factory):
    """Folder of the runs of PHASES under torchrun, and what each process said at their ends."""
    out = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(PHASES), str(demo_store), str(out)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split(" ", 2)[1:] for line in done.stdout.splitlines() if "RESULT" in line]
    return out, {(int(rank), *rest.split(": ", 1)) for rank, rest in lines}


def losses(run):
    return [row["loss"] for row in read_metrics(run)]


@pytest.mark.parametrize("name", ["two", "accumulated"])
def test_losses_are_those_of_one_process_with_the_same_effective_batch(
    runs, demo_store, tmp_path, name
):
    out, results = runs
    assert {(0, name, "0"), (1, name, "0")} <= results
    words = ["--config", "tiny.yaml", f"store={demo_store}", f"out={tmp_path}", "log.every=1"]
    assert pretrain.main([*words, "data.batch_size=4"]) == 0
    assert len(losses(tmp_path)) == 10
    assert losses(out / name) == pytest.approx(losses(tmp_path), abs=1e-4)


def test_a_signal_to_one_process_stops_both_with_a_checkpoint(runs):
    out, results = runs
    assert {(0, "stopped", "75"), (1, "stopped", "75")} <= results
    state = checkpoint.load_last(out / "stopped", pytest.fail)
    assert 3 <= state["step"] < 10
    assert len(state["rng"]) == 2


def test_processes_that_find_different_checkpoints_are_refused(runs):
    messages = {text for _, name, text in runs[1] if name in ("stopped", "elsewhere")} - {"75"}
    assert len(messages) == 2
    pattern = r"checkpoints of different steps \([3-9], 0\): .*all machines share$"
    assert all(re.search(pattern, text) for text in messages)


def test_a_loss_that_is_not_finite_on_one_process_is_skipped_by_both(runs):
    out, results = runs
    assert {(0, "skipped", "0"), (1, "skipped", "0")} <= results
    skipped = [row for row in read_metrics(out / "skipped") if "event" in row]
    assert [(row["step"], row["event"], len(row["videos"])) for row in skipped] == [
        (2, "skipped", 1)  # of the process whose loss it was
    ]
    weights = checkpoint.load_last(out / "skipped", pytest.fail)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_spent_budget_ends_both(runs):
    messages = [text for _, name, text in runs[1] if name == "budget"]
    assert len(messages) == 2
    assert all("step 2 skipped" in text and "nonfinite_budget=0" in text for text in messages)


def test_both_count_the_videos_that_one_of_them_cannot_read(runs):
    out, results = runs
    assert {(0, "unread", "0"), (1, "unread", "0")} <= results
    assert read_metrics(out / "unread")[-1]["bad"] == 2


def test_too_many_unread_videos_end_both_at_the_same_step(runs):
    out, results = runs
    messages = {text for _, name, text in results if name == "unread budget"}
    assert len(messages) == 1
    step = checkpoint.load_last(out / "unread budget", pytest.fail)["step"]
    assert f"data.bad_budget=1; saved after step {step}" in messages.pop()


def test_unreadable_first_batch_of_one_ends_both(runs):
    messages = [text for _, name, text in runs[1] if name == "unread first"]
    assert len(messages) == 2 and len(set(messages)) == 1
    assert messages[0].startswith("no video can be read: video ") and "mme repair" in messages[0]


def test_process_whose_peer_ended_says_so(runs):
    results = {(rank, text) for rank, name, text in runs[1] if name == "left"}
    assert results == {
        (0, "another process of this run has ended; its own message says why"),
        (1, "the disk is gone"),
    }


def test_a_single_process_needs_no_group():
    ranks = distributed.connect("cpu")
    assert ranks.main and ranks.world == 1
    assert ranks.gather("a") == ["a"]
    assert ranks.sum(torch.ones(2)).tolist() == [1, 1]
    distributed.disconnect()


def test_devices_and_precisions_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device=cuda"):
        distributed.connect("cuda")
    cpu = torch.device("cpu")
    assert distributed.autocast_dtype("auto", cpu) == torch.float32
    assert distributed.autocast_dtype("bf16", cpu) == torch.bfloat16
    with pytest.raises(UsageError, match="precision=fp16 needs a GPU"):
        distributed.autocast_dtype("fp16", cpu)


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK=1 is set in the environment, but not WORLD_SIZE"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set in the environment, but not RANK"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 is set in the environment, but not RANK"),
        ({"RANK": ""}, "RANK= in the environment is not a number"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is not a number"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK=1 must be below WORLD_SIZE=1"),
        ({**TORCHRUN, "MASTER_PORT": ""}, "RANK=1 is set in the environment, but not MASTER_PORT"),
    ],
)
def test_part_of_torchruns_environment_is_refused(environment, message, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["pretrain", "store=s", "out=o", "device=cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (probe, ["store=s", "val_store=v", "out=o"]),
        (features, ["store=s", "out=o.npz"]),
        (evaluate, ["val_store=v", "out=o"]),
    ],
)
def test_a_process_that_is_done_waits_a_day_for_the_others(command, words, monkeypatch):
    def refuse(*_, timeout):
        raise UsageError(f"waits {timeout}")

    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.dist, "init_process_group", refuse)
    with pytest.raises(UsageError, match=r"^waits 1 day, 0:00:00$"):
        command.main([*words, "init=none", "device=cpu"])
