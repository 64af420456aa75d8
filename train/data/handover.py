"""The memory in which loader processes hand their batches over.

A worker writes the clips of a batch straight into one block of shared memory. It writes into the
same few blocks again and again: the first touch of fresh memory costs a third of what reading and
decoding a clip does. A block is free again when its batch has been copied to pinned memory, or,
without CUDA, when nothing refers to the batch's tensors any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.data import get_worker_info

from mme_core.clips.coded import CodedForm

Block = tuple[int, int]  # a worker and the number of one of its blocks


@dataclass(frozen=True)
class Handed:
    """One batch on its way from a worker: memory, and how to find the tensors in it.

    clips   in the memory, of which the first `kept` count
    extras  further items of the batch
    block   where the memory comes from; None where it is the batch's own
    source  the memory that `memory` was copied from, where it was pinned
    """

    memory: Tensor  # uint8
    form: CodedForm
    clips: int
    kept: int
    extras: dict[str, Any]
    block: Block | None = None
    source: Tensor | None = None

    def pin_memory(self) -> Handed:  # torch's loader calls it, in a thread
        return replace(self, memory=self.memory.pin_memory(), source=self.memory)

    def tensors(self) -> dict[str, Any]:
        if not self.kept:
            return dict(self.extras)
        batch = self.form.carve(self.memory, self.clips)
        return {**{name: value[: self.kept] for name, value in batch.items()}, **self.extras}


class Blocks:
    """The blocks of all workers of a loader. Each worker has a copy; the flags are shared.

    workers, count  number of workers, and of blocks of each
    """

    def __init__(self, workers: int, count: int) -> None:
        self._taken = torch.zeros(workers, count, dtype=torch.uint8).share_memory_()
        self._own: dict[int, Tensor] = {}  # in a worker: its blocks
        self._pinned: dict[Block, Tensor] = {}  # in the trainer: keeps the blocks mapped
        self._used: dict[Block, StorageWeakRef] = {}  # in the trainer: batches without a copy

    def take(self, size: int) -> tuple[Tensor, Block | None]:
        """Memory uint8 [size] in a worker: a free block, or else memory of its own."""
        info = get_worker_info()
        if info is None:
            return torch.zeros(size, dtype=torch.uint8), None
        for number in range(self._taken.shape[1]):
            if not self._taken[info.id, number]:
                break
        else:
            return _shared(size), None
        block = self._own.get(number)
        if block is None or len(block) < size:
            block = self._own[number] = _shared(size)
        self._taken[info.id, number] = 1
        return block[:size], (info.id, number)

    def receive(self, handed: Handed) -> dict[str, Any]:
        """The batch, in the trainer; its block is free again as soon as that is safe."""
        self._release()
        if handed.block and handed.source is not None:
            self._pinned[handed.block] = handed.source
            self._free(handed.block)
        elif handed.block:
            self._used[handed.block] = StorageWeakRef(handed.memory.untyped_storage())
        return handed.tensors()

    def restart(self) -> None:
        """Frees all blocks: new workers begin with none."""
        self._pinned.clear()
        self._used.clear()
        self._taken.zero_()

    def _release(self) -> None:
        for block, storage in list(self._used.items()):
            if storage.expired():
                del self._used[block]
                self._free(block)

    def _free(self, block: Block) -> None:
        self._taken[block] = 0


def _shared(size: int) -> Tensor:
    """Zeros in shared memory, so that a batch is not copied on its way.

    As torch's own collate function does it; `share_memory_` would fill the memory twice.
    """
    storage = torch.UntypedStorage._new_shared(size, device="cpu")
    return torch.empty(0, dtype=torch.uint8).set_(storage)
