"""The cases of `benchmarks/gpu_train.py` that compute features with the encoder alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from gpu_parts import Result

from mme_core.clips.views import to_model_input
from mme_core.encoder import VideoEncoder, random_encoder
from train.data.sources import open_source
from train.engine.meter import Moment
from train.recipes.loading import load
from train.recipes.scoring import FeaturesConfig
from train.scoring.evaluation import Passes, view_plan
from train.scoring.features import stream_features

if TYPE_CHECKING:
    from gpu_cases import Bench

LARGEST_BATCH = 32  # views in a pass


def forward(bench: Bench, case: str) -> Result:
    """The encoder's pooled features of clips that stay on the device."""
    encoder, views = _encoder(bench), _views(bench)
    shape = (views, bench.args.frames, bench.args.image_size, bench.args.image_size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8).to(bench.device)

    def take() -> None:
        with torch.autocast(bench.device.type, bench.dtype, enabled=bench.gpu):
            tokens = encoder.tokens(to_model_input(frames))
        encoder.pool(tokens.float())

    with torch.inference_mode():
        for _ in range(bench.args.warmup):
            take()
        start = Moment(bench.device)
        for _ in range(4 * bench.args.steps):
            take()
        end = Moment(bench.device)
    end.wait()
    seconds = end.since(start) / (4 * bench.args.steps)
    return Result(case, views / seconds, 1000 * seconds)


def features(bench: Bench, case: str) -> Result:
    """One view of each video of the store, as `mme features` reads and encodes it."""
    views = _views(bench)
    sized = [f"model.size={bench.args.size}", f"model.image_size={bench.args.image_size}"]
    words = [*sized, f"model.frames={bench.args.frames}", f"data.batch_size={views}"]
    words += ["init=none", "out=features.npz", f"store={bench.need_store()}"]
    config = load(FeaturesConfig, words, "", "")
    source = open_source(config.data, config.store, root=None, split=None)
    plan = view_plan(source, config.data, config.view, config.model, recipe={})
    passes = Passes(views, bench.args.workers, bench.dtype)
    rows = stream_features(_encoder(bench), source, plan, bench.ranks, passes, tokens=False)
    first = [next(rows) for _ in range(views * min(bench.args.warmup, 2))]
    began = time.perf_counter()
    count = sum(1 for _ in rows)
    seconds = (time.perf_counter() - began) / max(count, 1)
    assert all(not isinstance(found, str) for _, found in first)
    return Result(case, 1 / seconds, 1000 * views * seconds)


def _views(bench: Bench) -> int:
    return min(bench.args.batch, LARGEST_BATCH)


def _encoder(bench: Bench) -> VideoEncoder:
    args = bench.args
    sizes = {"frames": args.frames, "image_size": args.image_size, "patch": 16, "depth": None}
    return random_encoder(0, args.size, **sizes).to(bench.device)
