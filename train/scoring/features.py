"""Features of a data set by a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mme_core.clips.views import to_model_input
from mme_core.encoder import VideoEncoder
from train.data.labelled import ViewPlan
from train.data.sources import Source
from train.engine.distributed import Ranks
from train.scoring.evaluation import gather_videos, view_loader


@dataclass(frozen=True)
class Features:
    """Pooled features of the videos that were read.

    video int64 [V] numbers the source's videos; pooled float32 [V, views, D]; failures (id, reason)
    """

    video: np.ndarray
    pooled: np.ndarray
    failures: list[tuple[str, str]]


@torch.inference_mode()
def stream_tokens(
    backbone: VideoEncoder,
    source: Source,
    plan: ViewPlan,
    ranks: Ranks,
    *,
    batch: int,
    workers: int,
    dtype: torch.dtype,
) -> Iterator[tuple[int, torch.Tensor | None, torch.Tensor | str]]:
    """(video, tokens [views, N, D], pooled [views, D]) of this process' videos, on the device.

    A video that cannot be read comes as (video, None, reason).
    """
    for items in view_loader(source, plan, ranks, batch=batch, workers=workers):
        read = [item for item in items if "failed" not in item]
        for item in items:
            if "failed" in item:
                yield item["video"], None, item["failed"]
        if not read:
            continue
        clip = to_model_input(torch.cat([item["views"] for item in read]).to(ranks.device))
        with torch.autocast(ranks.device.type, dtype, enabled=dtype is not torch.float32):
            tokens = backbone.tokens(clip)
        tokens = tokens.float()
        pooled = backbone.pool(tokens)
        views = len(clip) // len(read)
        for number, item in enumerate(read):
            part = slice(number * views, (number + 1) * views)
            yield item["video"], tokens[part], pooled[part]


def extract_features(
    backbone: VideoEncoder, source: Source, plan: ViewPlan, ranks: Ranks, **how: Any
) -> Features:
    """Pooled features of all videos, in the source's order, on every process."""
    rows, failures = [], []
    for video, tokens, value in stream_tokens(backbone, source, plan, ranks, **how):
        if tokens is None:
            failures.append((video, value))
        else:
            rows.append((video, value.cpu().numpy()))
    video, pooled, named = gather_videos(ranks, rows, failures, source)
    return Features(video, pooled.astype(np.float32), source.missing() + named)
