"""Batches on their way from the loader's memory to the device, and results on their way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from train.engine.meter import Moment

T = TypeVar("T")


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`; other values stay as they are."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def on_device(
    batches: Iterable[Mapping[str, Any]], device: torch.device
) -> Iterator[dict[str, Any]]:
    """The batches, their tensors copied to `device`.

    CUDA copies them on a stream of their own: the host asks for a batch while the device still
    works on the step before, and the copy runs beside that work.
    """
    if device.type != "cuda":
        for batch in batches:
            yield to_device(batch, device)
        return
    side, work = copy_stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(side):
            moved = to_device(batch, device)
        work.wait_stream(side)
        for value in moved.values():
            if isinstance(value, Tensor):
                value.record_stream(work)  # its memory belongs to the side stream
        yield moved


@cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of a GPU that copies batches.

    torch keeps freed memory for the stream that used it, so a new stream for each evaluation would
    keep a few more batches of memory each time.
    """
    return torch.cuda.Stream(device)


def read_back(
    results: Iterable[tuple[T, list[Tensor]]], device: torch.device
) -> Iterator[tuple[T, list[Tensor]]]:
    """The results with their tensors on the CPU.

    Each comes when the device already works on the next: the host does not wait for it in between.
    """
    before: tuple[T, list[Tensor], Moment] | None = None
    for about, tensors in results:
        copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        copied = Moment(device)
        if before is not None:
            before[2].wait()
            yield before[:2]
        before = about, copies, copied
    if before is not None:
        before[2].wait()
        yield before[:2]


def fill(values: Iterable[float], device: torch.device) -> Tensor:
    """A float32 tensor of numbers of the host. Copying them would wait for the device's work."""
    return torch.stack(
        [torch.full((), value, dtype=torch.float32, device=device) for value in values]
    )


def compiles(setting: bool | str, device: torch.device) -> bool:
    """The recipe's `compile`; auto: on CUDA, where compiling is worth its minute."""
    return device.type == "cuda" if setting == "auto" else bool(setting)
