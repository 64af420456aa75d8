"""Run by torchrun from test_evaluate: an evaluation and a probe, one after the other.

torchrun --nproc-per-node=2 tests/evaluate_phases.py OUT WORD…
"""

import sys
from unittest import mock

from train import evaluate, probe
from train.distributed import connect, disconnect

if __name__ == "__main__":
    out, *words = sys.argv[1:]
    group = connect("cpu")
    # one process group for both commands
    for module in (evaluate, probe):
        with (
            mock.patch.object(module, "connect", lambda device: group),
            mock.patch.object(module, "disconnect"),
        ):
            name = module.__name__.rpartition(".")[2]
            extra = ["probes=[knn]", "neighbours=[1]", "baselines=false"] * (name == "probe")
            assert module.main([*words, *extra, f"out={out}/{name}"]) == 0
    disconnect()
