"""Run by torchrun from test_distributed: several short runs, one after the other, in each process.

torchrun --nproc-per-node=2 tests/helpers/pretrain_phases.py STORE OUT
"""

import os
import signal
import sys

from mme_core.errors import MMEError
from train.engine.distributed import connect, disconnect
from train.pretrain import Pretraining
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig

STEP = Pretraining._step


def run(ranks, name, *words, before_step=lambda run: None):
    """One run; `before_step` is called on rank 1 ahead of each of its steps."""

    def step(self, batches, stop):
        if self.ranks.rank == 1:
            before_step(self)
        return STEP(self, batches, stop)

    Pretraining._step = step
    store, out = sys.argv[1:]
    words = [f"store={store}", f"out={out}/{name}", "log.every=1", *words]
    config = load(PretrainConfig, ["--config", "tiny.yaml", *words], "", "")
    try:
        status = Pretraining(config, ranks).run()
    except MMEError as error:
        status = str(error)
    # one write, on a line of its own whatever the other process is just saying
    os.write(1, f"\nRESULT {ranks.rank} {name}: {status}\n".encode())


def ask_to_stop(run):
    if run.done == 2:
        os.kill(os.getpid(), signal.SIGUSR1)


def spoil_a_weight_of_the_loss(run):
    """Not a number on this process alone, in its second step."""
    run.objective.weights["position"] = float("nan") if run.done == 1 else 1.0


if __name__ == "__main__":
    group = connect("cpu")
    run(group, "two", "data.batch_size=2")
    run(group, "accumulated", "data.batch_size=1", "optim.accumulate=2")
    run(group, "stopped", "data.batch_size=1", before_step=ask_to_stop)
    run(group, "skipped", "data.batch_size=1", before_step=spoil_a_weight_of_the_loss)
    run(group, "budget", "nonfinite_budget=0", before_step=spoil_a_weight_of_the_loss)
    disconnect()
