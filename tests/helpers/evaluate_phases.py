"""Run by torchrun from test_evaluate: an evaluation, a probe, a fine-tuning, one after the other.

torchrun --nproc-per-node=2 tests/helpers/evaluate_phases.py OUT WORD…
"""

import sys
from contextlib import nullcontext
from unittest import mock

from train import evaluate, finetune, probe
from train.engine.distributed import connected

# where nothing is drawn for a process, two learn what one does
FINETUNE = ["model.size=tiny", "model.depth=1", "model.frames=4", "model.image_size=32"]
FINETUNE += ["model.drop_path=0", "augment.mixup=0", "augment.cutmix=0", "augment.erase=0"]
FINETUNE += ["data.stride=2", "optim.steps=4", "optim.lr=0.02", "log.every=1", "eval.every=0"]
EXTRA = {
    "evaluate": [],
    "probe": ["probes=[knn]", "neighbours=[1]", "baselines=false"],
    "finetune": [*FINETUNE, "data.batch_size=2", "checkpoint.every=2"],
}

if __name__ == "__main__":
    out, *words = sys.argv[1:]
    with connected("cpu") as group:
        # one process group for all commands
        for module in (evaluate, probe, finetune):
            with mock.patch.object(module, "connected", lambda *_: nullcontext(group)):
                name = module.__name__.rpartition(".")[2]
                assert module.main([*words, *EXTRA[name], f"out={out}/{name}"]) == 0
