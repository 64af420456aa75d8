"""One process or many: which one this is, and how they exchange values.

The same command runs alone and under torchrun, which describes each process in its environment.
Every method of `Ranks` also works in a single process.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mme_core.errors import MMEError, UsageError
from mme_core.processes import die_with_parent

# Buffers are constant tables, not worth sending at each step; torch 2.14 renamed the switch.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
BUFFER_SWITCH = "forward_sync_buffers" if _RENAMED else "broadcast_buffers"

# Where processes exchange values once, after hours of work, the first to finish waits that long.
PATIENCE = timedelta(days=1)

# What Gloo and NCCL say when another process has ended.
_PEER_ENDED = re.compile(r"Connection (closed|reset) by peer|Broken pipe|remote process exited")


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
        options: dict[str, Any] = {BUFFER_SWITCH: False}
        return DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, **options
        )


def connect(device: str = "auto", patience: timedelta | None = None) -> Ranks:
    """Joins the other processes that torchrun started, if any.

    device    auto, cpu or cuda
    patience  how long a process waits for the others before it gives up; None: torch's default, 10
              minutes with NCCL
    Raises UsageError for a device that is not there and for an environment that says only part.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(os.getppid())  # a torchrun that was killed would leave this process
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device=cuda: torch finds no CUDA device; use device=cpu")
    rank, world, local = _read_environment()
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
    return Ranks(rank, world, torch.device(f"cuda:{local}" if device == "cuda" else device))


@contextlib.contextmanager
def connected(device: str = "auto", patience: timedelta | None = None) -> Iterator[Ranks]:
    """`connect` for the block, and `disconnect` after it.

    Raises MMEError where another process of the run has ended, because of an error of its own.
    """
    try:
        yield connect(device, patience)
        return
    except RuntimeError as error:
        if not (dist.is_initialized() and _PEER_ENDED.search(str(error))):
            raise
    finally:
        disconnect()
    # not in the `except`: an error's frames keep the loader's processes alive
    raise MMEError("another process of this run has ended; its own message says why")


def _read_environment() -> tuple[int, int, int]:
    """(rank, processes, rank on this machine), as torchrun sets them; (0, 1, 0) without it.

    Raises UsageError where some are missing: this process would do nothing, or wait for ever.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if not given:
        return 0, 1, 0
    mend = (
        f"torchrun sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT: start the processes with "
        f"it, or unset {', '.join(given)} for a single one"
    )
    for name, value in given.items():
        if not value.strip().isdecimal():
            raise UsageError(f"{name}={value} in the environment is not a number; {mend}")
    several = int(given.get("WORLD_SIZE", 1)) > 1
    needed = ["RANK", "WORLD_SIZE", *(["MASTER_ADDR", "MASTER_PORT"] if several else [])]
    if missing := [name for name in needed if not os.environ.get(name)]:
        first = next(iter(given))
        raise UsageError(
            f"{first}={given[first]} is set in the environment, but not {missing[0]}; {mend}"
        )
    rank, world = int(given["RANK"]), int(given["WORLD_SIZE"])
    if rank >= world:
        raise UsageError(f"RANK={rank} must be below WORLD_SIZE={world}; {mend}")
    return rank, world, int(given.get("LOCAL_RANK", 0))


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


def check_residual(residual: str, dtype: torch.dtype) -> None:
    """Raises UsageError where autocast (`dtype`) would not take the tokens of `model.residual`."""
    if residual == "bf16" and dtype is not torch.bfloat16:
        name = str(dtype).removeprefix("torch.")
        raise UsageError(f"model.residual=bf16 needs precision=bf16; here it is {name}")
