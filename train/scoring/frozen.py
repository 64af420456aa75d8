"""Frozen features of a labelled set: pooled features in memory, tokens in a file on disk."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mme_core.encoder import VideoEncoder
from mme_core.errors import MMEError
from train.data.labelled import ViewPlan
from train.data.sources import Source
from train.engine.distributed import Ranks
from train.scoring.evaluation import Passes, gather_videos
from train.scoring.features import stream_features

GPU_SHARE = 0.2  # of a GPU's free memory, for the tokens of one set
_AT_ONCE = 64  # videos whose tokens are in memory


class TokenFile:
    """float16 [videos, N, D] on disk, since the tokens of a data set seldom fit in memory.

    The row of a video is its number in its source; rows of videos that could not be read stay
    empty. `close` deletes the file.
    """

    def __init__(self, path: Path, backbone: VideoEncoder) -> None:
        self.path = path
        self.shape = (backbone.encoder.tokens, backbone.encoder.width)
        self.tubelets = backbone.encoder.grid[0]
        self.array: np.ndarray | None = None

    def create(self, videos: int) -> None:
        """Makes the file. Raises MMEError if the disk has too little room."""
        needed = videos * math.prod(self.shape) * 2
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # of a run that was killed
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise MMEError(
                f"the tokens of {videos} videos for the attentive probe take {needed / 1e9:.1f} GB "
                f"in {self.path.parent}, which has {free / 1e9:.1f} GB left; choose another out=…, "
                "or probes=[linear,knn]"
            )
        with self.path.open("wb") as file:
            os.truncate(file.fileno(), needed)

    def open(self, videos: int) -> np.ndarray:
        self.array = np.memmap(self.path, np.float16, mode="r+", shape=(videos, *self.shape))
        return self.array

    def close(self) -> None:
        self.array = None
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Tokens:
    """The filled rows of a TokenFile: int64 [V], those of the videos that were read."""

    file: TokenFile
    rows: np.ndarray

    def read(self, index: Tensor) -> Tensor:
        """Tokens of the videos `index` (int64, on the CPU): float32 [len(index), N, D]."""
        assert self.file.array is not None  # the file is open
        return torch.from_numpy(self.file.array[self.rows[index.numpy()]].astype(np.float32))

    def on(self, device: torch.device) -> Tensor | None:
        """All tokens, float16 [V, N, D], on a GPU; None where they take much of its free memory."""
        assert self.file.array is not None  # the file is open
        size = len(self.rows) * math.prod(self.file.shape) * 2
        if device.type != "cuda" or size > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            return None
        return torch.from_numpy(self.file.array[self.rows]).to(device)

    def tubelet_means(self) -> Tensor:
        """The mean of each tubelet's tokens, side by side: float32 [V, n · D], on the CPU."""
        n, width = self.file.tubelets, self.file.shape[1]
        parts = torch.arange(len(self.rows)).split(_AT_ONCE)
        means = [self.read(part).unflatten(1, (n, -1)).mean(2) for part in parts]
        return torch.cat(means).reshape(-1, n * width)


@dataclass(frozen=True)
class FrozenSet:
    """Features of the videos that were read.

    pooled    float32 [V, D], on the device
    labels    int64 [V], on the device
    tokens    None if they were not asked for
    failures  (id, reason) of the videos that could not be read
    """

    pooled: Tensor
    labels: Tensor
    tokens: Tokens | None
    failures: list[tuple[str, str]]


def extract_set(
    backbone: VideoEncoder,
    source: Source,
    plan: ViewPlan,
    ranks: Ranks,
    passes: Passes,
    *,
    tokens: TokenFile | None,
) -> FrozenSet:
    """Runs the encoder once over all videos, and averages pooled features and tokens over views.

    Raises MMEError if no video could be read, or if the disk has too little room for the tokens.
    """
    videos = len(source.ids)
    if tokens is not None and ranks.main:
        tokens.create(videos)
    ranks.gather(None)  # waits until the main process has made the file
    array = None if tokens is None else tokens.open(videos)
    rows: list[tuple[int, np.ndarray]] = []
    failures: list[tuple[int, str]] = []
    keep = array is not None
    for video, found in stream_features(backbone, source, plan, ranks, passes, tokens=keep):
        if isinstance(found, str):
            failures.append((video, found))
            continue
        rows.append((video, found.pooled.mean(0).numpy()))
        if array is not None and found.tokens is not None:
            array[video] = found.tokens.numpy()
    read, pooled, named = gather_videos(ranks, rows, failures, source)
    return FrozenSet(
        pooled=torch.from_numpy(pooled).to(ranks.device),
        labels=torch.from_numpy(source.labels[read]).to(ranks.device),
        tokens=None if tokens is None else Tokens(tokens, read),
        failures=source.missing() + named,
    )
