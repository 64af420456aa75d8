"""Short pre-training runs in this process, on the CPU."""

from __future__ import annotations

import torch

from mme_core.weights.run_folder import read_metrics
from train import pretrain
from train.engine.distributed import Ranks
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig

CPU = Ranks(0, 1, torch.device("cpu"))


def training(store, out, *words):
    fixed = ["log.every=1", "checkpoint.every=100", "norm.floor=0.1"]
    words = ["--config", "tiny.yaml", f"store={store}", f"out={out}", *fixed, *words]
    return pretrain.Pretraining(load(PretrainConfig, words, "", ""), CPU)


def run(store, out, *words):
    """The rows of metrics.jsonl."""
    assert training(store, out, *words).run() == 0
    return read_metrics(out)


def losses(rows):
    return [row["loss"] for row in rows if "loss" in row]
