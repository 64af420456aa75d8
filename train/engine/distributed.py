"""One training process or many: who am I, what do the others say, when to stop.

The same command runs alone and under torchrun, which describes the process in the environment
(RANK, WORLD_SIZE, LOCAL_RANK). Every helper is a no-op of the same meaning in a single process.
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mme_core.errors import UsageError

STOPPED = 75  # exit status of a run that saved and stopped for a signal (EX_TEMPFAIL: try again)
# Buffers are constant tables, not worth sending at each step; torch 2.14 renamed the switch.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
BUFFER_SWITCH = "forward_sync_buffers" if _RENAMED else "broadcast_buffers"

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # the second is Slurm's usual warning


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` processes of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process' picklable value, in the order of the ranks."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model under DistributedDataParallel, where there are other processes."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, **{BUFFER_SWITCH: False}
        )


def connect(device: str = "auto", patience: timedelta | None = None) -> Ranks:
    """Joins the run that torchrun describes, if any.

    device    auto, cpu or cuda
    patience  how long a process waits for the others before it gives up; None: torch's minutes
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device=cuda: torch finds no CUDA device; use device=cpu")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine has no GPU of its own: torchrun "
                f"--nproc-per-node={torch.cuda.device_count()} at most, or device=cpu"
            )
        torch.cuda.set_device(local)
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in fp32
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=patience)
    return Ranks(rank, world, torch.device(device, local if device == "cuda" else None))


def disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """float32 means no autocast. auto: bfloat16 on CUDA (float16 before Ampere), fp32 on CPU."""
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        capable = torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if capable else torch.float16
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision=fp16 needs a GPU; use precision=fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


class StopRequest:
    """True once SIGTERM or SIGUSR1 has come; the loop saves at the end of its step and stops."""

    def __init__(self) -> None:
        self.signal = 0
        self._before = {s: signal.signal(s, self._note) for s in STOP_SIGNALS}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number

    def __bool__(self) -> bool:
        return self.signal != 0

    def close(self) -> None:
        """Puts the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """A Ctrl-C is raised at the end of the block, for what must not be left half done.

    Only the main thread hears it, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)
