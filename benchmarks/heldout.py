"""The held-out losses of finished pre-training runs on any stores.

    python benchmarks/heldout.py RUN [RUN …] --stores STORE [STORE …] [--clips 400]

Each row has the loss of every content beside the loss of the best constant, and the mean
end-point errors in canvas pixels where the run predicts position. docs/training.md explains them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from mme_core.clips.dataset import collate
from mme_core.store import TargetStore
from train.engine.distributed import autocast_dtype, connected
from train.objective.reconstruction import Objective, build_model
from train.recipes import loading
from train.recipes.pretraining import PretrainConfig
from train.recipes.weights import fill
from train.scoring.heldout import clip_dataset, held_out_loss
from train.scoring.pixels import ERRORS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--stores", nargs="+", required=True, help="paths or fsspec URLs")
    parser.add_argument("--clips", type=int, default=400, help="number of videos of each store")
    options = parser.parse_args()
    for run in options.runs:
        for store in options.stores:
            report(run, store, options.clips)


def report(run: Path, url: str, clips: int) -> None:
    words = [f"--config={run / 'config.yaml'}", f"out={run}", "device=cpu"]
    config = loading.load(PretrainConfig, words, "heldout.py", __doc__ or "")
    store = TargetStore(url)
    with connected(config.device) as ranks:
        dtype = autocast_dtype(config.precision, ranks.device)
        objective = Objective.of(config, store.spec, ranks.device, dtype)
        model = build_model(config, objective.sizes)
        fill(model, str(run))
        data = clip_dataset(store, config, training=False)
        videos = np.linspace(0, len(data) - 1, min(clips, len(data))).astype(int)
        batches = (
            collate([data[0, int(video)] for video in chosen])
            for chosen in np.array_split(videos, -(-len(videos) // config.data.batch_size))
        )
        torch.manual_seed(config.seed)
        row = held_out_loss(model, objective, batches, ranks)
    parts = [
        f"{name} {row[f'val_{name}']:.3f} of {row[f'constant_{name}']:.3f} "
        f"({row[f'val_{name}'] / row[f'constant_{name}'] - 1:+.0%})"
        for name in objective.weights
    ]
    parts += [f"{name} {row[name]:.2f}" for name in ERRORS if name in row]
    print(f"{run} on {url}: {'; '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
