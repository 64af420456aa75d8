"""Multi-view class scores of labelled videos, and the metrics of a classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mme_core.clips.views import DENSE, to_model_input
from mme_core.errors import MMEError, UsageError
from mme_core.progress import Progress
from mme_core.weights.run_folder import EVALUATION, PREDICTIONS
from train.data.labelled import TestViews, ViewPlan, collate_views
from train.data.loader import make_loader
from train.data.sources import Source, frame_stride
from train.engine.device import on_device, read_back
from train.engine.distributed import Ranks, autocast_dtype
from train.recipes.classification import LabelledDataConfig, ViewConfig
from train.recipes.pretraining import ModelConfig
from train.recipes.scoring import EvaluateConfig, FeaturesConfig, ProbeConfig
from train.scoring.metrics import (
    Metrics,
    draw_confusion,
    measure,
    write_per_class,
    write_predictions,
)

Data = TypeVar("Data", bound=LabelledDataConfig)


@dataclass(frozen=True)
class Evaluation:
    """Class probabilities of the videos that were read, averaged over views, and their metrics.

    video     int64 [V], numbers of the videos in their source
    scores    float64 [V, C]
    failures  (id, reason) of the videos that were not read
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

    def to_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        return {
            **self.metrics.to_dict(),
            "clips": self.plan.clips,
            "crops": self.plan.crops,
            "still": self.plan.still,
            "not_read": [{"id": video, "reason": reason} for video, reason in self.failures],
        }


@dataclass(frozen=True)
class Passes:
    """How the views of a source pass through a model.

    batch    views of a forward pass
    workers  processes that read videos
    dtype    of autocast; float32 turns autocast off
    """

    batch: int
    workers: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: ProbeConfig | EvaluateConfig | FeaturesConfig, ranks: Ranks) -> Passes:
        """As the recipe says."""
        dtype = autocast_dtype(config.precision, ranks.device)
        return cls(config.data.batch_size, config.data.workers, dtype)

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.dtype, enabled=self.dtype is not torch.float32)


@torch.inference_mode()
def score_videos(
    model: nn.Module, source: Source, plan: ViewPlan, ranks: Ranks, passes: Passes
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """(video int64 [V], scores float64 [V, C], failures): softmax averaged over the views.

    failures  (id, reason) of the videos that were not read
    The scores do not depend on the number of processes, to the last digit.
    """
    model.eval()
    rows: list[tuple[int, np.ndarray]] = []
    failures: list[tuple[int, str]] = []

    def scored() -> Iterator[tuple[list[int], list[Tensor]]]:
        for views in read_views(source, plan, ranks, passes):
            failures.extend(views.failures)
            if views.clip is None:
                continue
            with passes.autocast(ranks.device):
                logits = model(views.clip)
            each = logits.double().softmax(1).unflatten(0, (len(views.videos), -1))
            yield views.videos, [each.mean(1)]

    for videos, (scores,) in read_back(scored(), ranks.device):
        rows += zip(videos, scores.numpy())
    return gather_videos(ranks, rows, failures, source)


def gather_videos(
    ranks: Ranks,
    rows: list[tuple[int, np.ndarray]],
    failures: list[tuple[int, str]],
    source: Source,
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """Collects the rows (video, values) of all processes, in the source's order, on each of them.

    Returns (video int64 [V], values [V, …], failures (id, reason)). Raises MMEError if no video
    could be read.
    """
    gathered = ranks.gather((rows, failures))
    rows = sorted((row for part, _ in gathered for row in part), key=lambda row: row[0])
    failures = sorted(failure for _, part in gathered for failure in part)
    if not rows:
        raise MMEError(f"none of {len(source.ids)} videos can be read: {failures[0][1]}")
    named = [(source.ids[video], reason) for video, reason in failures]
    return np.array([video for video, _ in rows]), np.stack([v for _, v in rows]), named


class ViewBatch(NamedTuple):
    """The views of a few videos.

    videos    numbers of the videos that were read
    clip      float32 [len(videos) · views, 3, T, S, S] on the device; None if none was read
    failures  (video, reason) of the others
    """

    videos: list[int]
    clip: Tensor | None
    failures: list[tuple[int, str]]


def read_views(source: Source, plan: ViewPlan, ranks: Ranks, passes: Passes) -> Iterator[ViewBatch]:
    """The views of a source in batches of about `passes.batch` views.

    Each process takes every `ranks.world`-th batch. The batches do not depend on their number.
    """
    together = max(1, passes.batch // (plan.clips * plan.crops))
    starts = range(0, len(source.ids), together)
    batches = [list(range(s, min(s + together, len(source.ids)))) for s in starts]
    mine = batches[ranks.rank :: ranks.world]
    loader = make_loader(TestViews(source, plan), mine, collate_views, passes.workers)
    with Progress(sum(map(len, mine)), "videos", silent=not ranks.main) as progress:
        for views in on_device(loader, ranks.device):
            clip = to_model_input(views["views"]) if "views" in views else None
            yield ViewBatch(views["videos"], clip, views["failures"])
            failed = len(views["failures"])
            progress.advance(len(views["videos"]) + failed, failed)


def evaluate(
    model: nn.Module, source: Source, plan: ViewPlan, ranks: Ranks, passes: Passes
) -> Evaluation:
    """Scores and metrics of labelled videos."""
    video, scores, failures = score_videos(model, source, plan, ranks, passes)
    named = source.missing() + failures
    metrics = measure(scores, source.labels[video], asked=len(video) + len(named))
    return Evaluation(video, scores, named, metrics, plan)


def write_evaluation(out: Path, result: Evaluation, source: Source) -> None:
    """Writes evaluation.json, predictions.csv, per_class.csv and confusion.png into `out`."""
    names = list(source.class_names)
    out.mkdir(parents=True, exist_ok=True)
    (out / EVALUATION).write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    ids = [source.ids[video] for video in result.video]
    labels = source.labels[result.video]
    write_predictions(out / PREDICTIONS, ids, labels, result.scores, names)
    write_per_class(out / "per_class.csv", result.metrics.confusion, names)
    draw_confusion(out / "confusion.png", result.metrics.confusion, names)


def view_plan(
    source: Source,
    data: LabelledDataConfig,
    views: ViewConfig,
    model: ModelConfig,
    *,
    stride: int | None = None,
    still: bool | None = None,
) -> ViewPlan:
    """The views of a source's videos.

    data    as `settled` returns it
    stride  frame stride in raw frames if `data` sets none. Default: the source's stride.
    still   replaces data.still
    Raises UsageError for a stride that the source cannot serve.
    """
    return ViewPlan(
        sampling=data.sampling or DENSE,
        stride=frame_stride(stride if data.stride is None else data.stride, source),
        frames=model.frames,
        size=model.image_size,
        clips=views.clips,
        crops=views.crops,
        still=data.still if still is None else still,
    )


def settled(data: Data, recipe: Mapping[str, Any]) -> Data:
    """Fills in the sampling and the frame stride of clips where `data` sets none.

    recipe  the recipe that trained the weights; {} if it is not known

    The recipe's values are used. The default sampling is "dense". The stride stays None if the
    recipe has none either, and for the sampling "segment", which has no stride. Raises UsageError
    if `data` sets a stride for that sampling.
    """
    trained = recipe.get("data", {})
    sampling = data.sampling or trained.get("sampling") or DENSE
    if sampling == DENSE:
        stride = trained.get("stride") if data.stride is None else data.stride
        return replace(data, sampling=sampling, stride=stride)
    if data.stride is not None:
        raise UsageError(
            f"data.stride={data.stride} has no effect with data.sampling={sampling}, which "
            f"spreads the frames over the video: leave it out, or add data.sampling={DENSE}"
        )
    return replace(data, sampling=sampling)
