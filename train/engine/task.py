"""What a command asks the training loop to train."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from train.engine.runlog import RunLog
from train.engine.unread import Unread

Batch = Mapping[str, Tensor]


class Sampler(Protocol):
    """Which videos the batches hold, and from where on; see `train.data.sampler.ClipSampler`."""

    def __len__(self) -> int: ...

    def state_dict(self, done: int) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> int: ...


@dataclass
class Task:
    """What one command trains.

    model          on its device; checkpoints hold its state
    step           holds the model: batch on the device -> (loss, {name: part of it to log}); the
                   loop compiles and wraps it
    batches        endless micro-batches; their "video" holds indices of `video_ids`
    sampler        which videos the batches hold; checkpoints keep its position
    video_ids      names of the training videos
    lr_batch       samples of a step that the learning rate is scaled by
    dtype          of autocast; float16 needs a scaled loss
    state          what a checkpoint holds beside the loop's own values
    check          (checkpoint, its name): raises MMEError where it was trained on other data
    evaluate       (step, log) -> (row of metrics, line for the terminal), or None
    evaluate_last  evaluate after the last step too
    groups         parameter groups of the optimiser, where rates differ
    average        moving average of the weights
    seed_draws     seed the random generators for each micro-batch, as a function of its step
    unread         the videos that another one stood in for
    prepare        what is done with a batch on the device before the step, and not compiled
    ready          number of batches that the loader has ready, where it has workers
    flops          of one clip, forward and backward; None: unknown
    """

    model: nn.Module
    step: nn.Module
    batches: Generator[Batch]
    sampler: Sampler
    video_ids: Sequence[str]
    lr_batch: int
    dtype: torch.dtype
    state: Mapping[str, Any]
    check: Callable[[Mapping[str, Any], str], None]
    unread: Unread
    evaluate: Callable[[int, RunLog], tuple[dict[str, Any], str]] | None
    evaluate_last: bool = True
    groups: list[dict[str, Any]] | None = None
    average: ModelEmaV3 | None = None
    seed_draws: bool = False
    prepare: Callable[[Batch], Batch] | None = None
    ready: Callable[[], int | None] = lambda: None
    flops: float | None = None
