"""Multi-view scores of labelled videos, and what they say of a classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mme_core.clips.views import to_model_input
from mme_core.errors import MMEError
from train.data.labelled import TestViews, ViewPlan
from train.data.loader import make_loader
from train.data.sources import Source, frame_stride
from train.engine.distributed import Ranks
from train.recipes.classification import LabelledDataConfig, ViewConfig
from train.recipes.pretraining import ModelConfig
from train.scoring.metrics import (
    Metrics,
    draw_confusion,
    measure,
    write_per_class,
    write_predictions,
)


@dataclass(frozen=True)
class Evaluation:
    """Class probabilities of the videos that were read, averaged over views, and what they say.

    video int64 [V] numbers the source's videos; scores float64 [V, C]; failures (id, reason).
    """

    video: np.ndarray
    scores: np.ndarray
    failures: list[tuple[str, str]]
    metrics: Metrics
    plan: ViewPlan

    def __str__(self) -> str:
        m = self.metrics
        text = (
            f"top-1 {m.top1:.2%}, top-5 {m.top5:.2%}, mean class {m.mean_class:.2%} of {m.videos} "
            f"videos, views (clips × crops) {self.plan.clips} × {self.plan.crops}"
        )
        if self.plan.still:
            text += ", each a still frame"
        if self.failures:
            text += f"; {len(self.failures)} of {m.asked} not read (coverage {m.coverage:.2%})"
        return text


@torch.inference_mode()
def score_videos(
    model: nn.Module,
    source: Source,
    plan: ViewPlan,
    ranks: Ranks,
    *,
    batch: int,
    workers: int,
    dtype: torch.dtype,
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """(video int64 [V], scores float64 [V, C], failures): softmax averaged over the views.

    Batches are the same videos whatever the number of processes, which take turns: no video is
    seen twice, and the numbers agree to the last digit. batch: views of a forward pass, at least.
    """
    model.eval()
    rows: list[tuple[int, np.ndarray]] = []
    failures: list[tuple[int, str]] = []
    for items in view_loader(source, plan, ranks, batch=batch, workers=workers):
        failures += [(item["video"], item["failed"]) for item in items if "failed" in item]
        read = [item for item in items if "failed" not in item]
        if not read:
            continue
        clip = to_model_input(torch.cat([item["views"] for item in read]).to(ranks.device))
        with torch.autocast(ranks.device.type, dtype, enabled=dtype is not torch.float32):
            logits = model.forward(clip)  # never compiled: the last batch is smaller
        scores = logits.double().softmax(1).unflatten(0, (len(read), -1)).mean(1).cpu().numpy()
        rows += [(item["video"], row) for item, row in zip(read, scores)]
    return gather_videos(ranks, rows, failures, source)


def gather_videos(
    ranks: Ranks,
    rows: list[tuple[int, np.ndarray]],
    failures: list[tuple[int, str]],
    source: Source,
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """All processes' rows (video, values) in the source's order, on every process.

    Returns (video int64 [V], values [V, …], failures (id, reason)). Raises MMEError where no video
    could be read.
    """
    gathered = ranks.gather((rows, failures))
    rows = sorted((row for part, _ in gathered for row in part), key=lambda row: row[0])
    failures = sorted(failure for _, part in gathered for failure in part)
    if not rows:
        raise MMEError(f"none of {len(source.ids)} videos can be read: {failures[0][1]}")
    named = [(source.ids[video], reason) for video, reason in failures]
    return np.array([video for video, _ in rows]), np.stack([v for _, v in rows]), named


def view_loader(
    source: Source, plan: ViewPlan, ranks: Ranks, *, batch: int, workers: int
) -> DataLoader:
    """Lists of items of TestViews; this process gets every world-th list."""
    together = max(1, batch // (plan.clips * plan.crops))
    starts = range(0, len(source.ids), together)
    batches = [list(range(s, min(s + together, len(source.ids)))) for s in starts]
    mine = batches[ranks.rank :: ranks.world]
    return make_loader(TestViews(source, plan), mine, list, workers)


def evaluate(
    model: nn.Module, source: Source, plan: ViewPlan, ranks: Ranks, **how: Any
) -> Evaluation:
    """Scores and metrics of labelled videos; `how` as of `score_videos`."""
    video, scores, failures = score_videos(model, source, plan, ranks, **how)
    named = source.missing() + failures
    metrics = measure(scores, source.labels[video], asked=len(video) + len(named))
    return Evaluation(video, scores, named, metrics, plan)


def write_evaluation(out: Path, result: Evaluation, source: Source) -> None:
    """evaluation.json, predictions.csv, per_class.csv and confusion.png."""
    names = list(source.class_names)
    summary = {
        **result.metrics.to_dict(),
        "clips": result.plan.clips,
        "crops": result.plan.crops,
        "still": result.plan.still,
        "not_read": [{"id": video, "reason": reason} for video, reason in result.failures],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(summary, indent=2))
    ids = [source.ids[video] for video in result.video]
    labels = source.labels[result.video]
    write_predictions(out / "predictions.csv", ids, labels, result.scores, names)
    write_per_class(out / "per_class.csv", result.metrics.confusion, names)
    draw_confusion(out / "confusion.png", result.metrics.confusion, names)


def view_plan(
    source: Source,
    data: LabelledDataConfig,
    views: ViewConfig,
    model: ModelConfig,
    *,
    recipe: Mapping[str, Any],
    stride: int | None = None,
    still: bool | None = None,
) -> ViewPlan:
    """How a source's videos are seen: as the recipe that trained the weights says, or else `data`.

    stride  raw frames between two of a clip where neither says; by default the source's own
    still   in place of data.still
    Raises UsageError for a stride that the source cannot serve.
    """
    sampling, trained = trained_data(recipe, data)
    return ViewPlan(
        sampling=sampling,
        stride=frame_stride(stride if trained is None else trained, source),
        frames=model.frames,
        size=model.image_size,
        clips=views.clips,
        crops=views.crops,
        still=data.still if still is None else still,
    )


def trained_data(recipe: Mapping[str, Any], data: LabelledDataConfig) -> tuple[str, int | None]:
    """(sampling, raw stride) that a classifier was trained with, else what `data` says.

    A stride means nothing to segments, and is None for them.
    """
    trained = recipe.get("data", {})
    sampling = trained.get("sampling", data.sampling)
    stride = data.stride if data.stride is not None else trained.get("stride")
    return sampling, stride if sampling == "dense" else None
