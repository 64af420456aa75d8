"""Features of a data set from a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mme_core.encoder import VideoEncoder
from train.data.labelled import ViewPlan
from train.data.sources import Source
from train.engine.distributed import Ranks
from train.scoring.evaluation import gather_videos, read_views


@dataclass(frozen=True)
class Features:
    """Pooled features of the videos that were read.

    video     int64 [V], numbers of the videos in their source
    pooled    float32 [V, views, D]
    failures  (id, reason) of the videos that were not read
    """

    video: np.ndarray
    pooled: np.ndarray
    failures: list[tuple[str, str]]


class VideoTokens(NamedTuple):
    """The encoder's output for one video, on the device: [views, N, D] and [views, D]."""

    tokens: Tensor
    pooled: Tensor


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
) -> Iterator[tuple[int, VideoTokens | str]]:
    """(video, its tokens) of this process' videos; (video, reason) if a video cannot be read."""
    for videos, clip, failures in read_views(source, plan, ranks, batch=batch, workers=workers):
        yield from failures
        if clip is None:
            continue
        with torch.autocast(ranks.device.type, dtype, enabled=dtype is not torch.float32):
            tokens = backbone.tokens(clip)
        tokens = tokens.float()
        pooled = backbone.pool(tokens)
        views = len(clip) // len(videos)
        for video, *found in zip(videos, tokens.split(views), pooled.split(views)):
            yield video, VideoTokens(*found)


def extract_features(
    backbone: VideoEncoder, source: Source, plan: ViewPlan, ranks: Ranks, **how: Any
) -> Features:
    """Pooled features of all videos, in the source's order, on every process.

    `how`: the keyword arguments of `stream_tokens`. Raises MMEError if no video could be read.
    """
    rows: list[tuple[int, np.ndarray]] = []
    failures: list[tuple[int, str]] = []
    for video, found in stream_tokens(backbone, source, plan, ranks, **how):
        if isinstance(found, str):
            failures.append((video, found))
        else:
            rows.append((video, found.pooled.cpu().numpy()))
    videos, pooled, named = gather_videos(ranks, rows, failures, source)
    return Features(videos, pooled.astype(np.float32), source.missing() + named)
