"""Batches on their way from the loader's memory to the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def on_device(
    batches: Iterable[Mapping[str, Tensor]], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """The batches, copied to `device`.

    CUDA copies them on a stream of their own: the host asks for a batch while the device still
    works on the step before, and the copy runs beside that work.
    """
    if device.type != "cuda":
        for batch in batches:
            yield to_device(batch, device)
        return
    side, work = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(side):
            moved = to_device(batch, device)
        work.wait_stream(side)
        for value in moved.values():
            value.record_stream(work)  # its memory belongs to the side stream
        yield moved


def fill(values: Iterable[float], device: torch.device) -> Tensor:
    """A float32 tensor of numbers of the host. Copying them would wait for the device's work."""
    return torch.stack([torch.full((), value, device=device) for value in values])


def compiles(setting: bool | str, device: torch.device) -> bool:
    """The recipe's `compile`; auto: on CUDA, where compiling is worth its minute."""
    return device.type == "cuda" if setting == "auto" else bool(setting)
