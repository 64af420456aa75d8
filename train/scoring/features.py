"""Features of a data set from a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mme_core.encoder import VideoEncoder
from train.data.labelled import ViewPlan
from train.data.sources import Source
from train.engine.device import read_back
from train.engine.distributed import Ranks
from train.scoring.evaluation import Passes, gather_videos, read_views


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


class VideoFeatures(NamedTuple):
    """The encoder's output for one video, float32 on the CPU: pooled [views, D], and tokens [N, D],
    the mean over its views, where they were asked for."""

    pooled: Tensor
    tokens: Tensor | None


@torch.inference_mode()
def stream_features(
    backbone: VideoEncoder,
    source: Source,
    plan: ViewPlan,
    ranks: Ranks,
    passes: Passes,
    *,
    tokens: bool,
) -> Iterator[tuple[int, VideoFeatures | str]]:
    """(video, its features) of this process' videos; (video, reason) if one cannot be read."""
    failures: list[tuple[int, str]] = []

    def computed() -> Iterator[tuple[list[int], list[Tensor]]]:
        for videos, clip, failed in read_views(source, plan, ranks, passes):
            failures.extend(failed)
            if clip is None:
                continue
            with passes.autocast(ranks.device):
                each = backbone.tokens(clip)
            each = each.float()
            parts = [backbone.pool(each), *([each] if tokens else [])]
            shape = (len(videos), -1)
            pooled, *rest = (part.unflatten(0, shape) for part in parts)
            yield videos, [pooled, *(part.mean(1) for part in rest)]

    for videos, (pooled, *rest) in read_back(computed(), ranks.device):
        for number, video in enumerate(videos):
            yield video, VideoFeatures(pooled[number], rest[0][number] if rest else None)
    yield from failures


def extract_features(
    backbone: VideoEncoder, source: Source, plan: ViewPlan, ranks: Ranks, passes: Passes
) -> Features:
    """Pooled features of all videos, in the source's order, on every process.

    Raises MMEError if no video could be read.
    """
    rows: list[tuple[int, np.ndarray]] = []
    failures: list[tuple[int, str]] = []
    for video, found in stream_features(backbone, source, plan, ranks, passes, tokens=False):
        if isinstance(found, str):
            failures.append((video, found))
        else:
            rows.append((video, found.pooled.numpy()))
    videos, pooled, named = gather_videos(ranks, rows, failures, source)
    return Features(videos, pooled.astype(np.float32), source.missing() + named)
