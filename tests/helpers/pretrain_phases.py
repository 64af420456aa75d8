"""Run by torchrun from test_distributed: several short runs, one after the other, in each process.

torchrun --nproc-per-node=2 tests/helpers/pretrain_phases.py STORE OUT
"""

import os
import signal
import sys

from mme_core.clips.dataset import ClipDataset
from mme_core.errors import MMEError, StoreError
from train.engine.distributed import connected
from train.engine.loop import Loop
from train.pretrain import Pretraining
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig

STEP = Loop._step
READ = ClipDataset.fetch_into


def say(name, result):
    """One write, on a line of its own whatever the other process is just saying."""
    os.write(1, f"\nRESULT {os.environ['RANK']} {name}: {result}\n".encode())


def run(ranks, name, *words, before_step=lambda loop, pretraining: None):
    """One run; calls `before_step(loop, pretraining)` on rank 1 before each of its steps."""

    def step(loop, batches):
        if loop.ranks.rank == 1:
            before_step(loop, pretraining)
        return STEP(loop, batches)

    Loop._step = step
    store, out = sys.argv[1:]
    words = [f"store={store}", f"out={out}/{name}", "log.every=1", *words]
    words.append("data.resident=false")  # the store is read while the run goes on
    config = load(PretrainConfig, ["--config", "tiny.yaml", *words], "", "")
    try:
        pretraining = Pretraining(config, ranks)
        status = pretraining.run()
    except MMEError as error:
        status = str(error)
    say(name, status)


def ask_to_stop(loop, _):
    if loop.done == 2:
        os.kill(os.getpid(), signal.SIGUSR1)


def spoil_a_weight_of_the_loss(loop, pretraining):
    """The loss is not a number in this process alone, in its second step."""
    pretraining.objective.weights["position"] = float("nan") if loop.done == 1 else 1.0


def read_all_but_two(clips, arrays, first, key):
    """Videos 0 and 1 cannot be read."""
    if key[1] in (0, 1):
        raise StoreError(f"video {key[1]} is damaged")
    READ(clips, arrays, first, key)


def read_none_on_rank_1(clips, arrays, first, key):
    if os.environ["RANK"] == "1":
        raise StoreError(f"video {key[1]} is damaged")
    READ(clips, arrays, first, key)


def leave(loop, _):
    if loop.done == 2:
        raise StoreError("the disk is gone")


def phases(ranks):
    run(ranks, "two", "data.batch_size=2")
    run(ranks, "accumulated", "data.batch_size=1", "optim.accumulate=2")
    run(ranks, "stopped", "data.batch_size=1", before_step=ask_to_stop)
    # resumes, but rank 1 looks for the checkpoint on a disk of its own
    run(ranks, "stopped" if ranks.main else "elsewhere", "data.batch_size=1")
    run(ranks, "skipped", "data.batch_size=1", before_step=spoil_a_weight_of_the_loss)
    run(ranks, "budget", "nonfinite_budget=0", before_step=spoil_a_weight_of_the_loss)
    ClipDataset.fetch_into = read_all_but_two
    read = ["data.workers=0", "data.resident=false"]
    run(ranks, "unread", *read)
    run(ranks, "unread budget", *read, "data.bad_budget=1")
    ClipDataset.fetch_into = read_none_on_rank_1
    run(ranks, "unread first", *read, "data.bad_budget=1")
    ClipDataset.fetch_into = READ
    run(ranks, "left", before_step=leave)  # rank 1 ends here, and rank 0 hears no more of it


if __name__ == "__main__":
    try:
        with connected("cpu") as group:
            phases(group)
    except MMEError as error:
        say("left", error)
