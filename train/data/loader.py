"""The processes that load clips."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from mme_core.cores import usable_cores
from mme_core.errors import MMEError
from mme_core.processes import ChildEnvironment
from train.data.handover import Blocks, Handed
from train.data.standins import Clips, StandIns
from train.engine.signals import STOP_SIGNALS, interrupt_waits

PREFETCH = 2  # batches that each worker has ready or is making
# Blocks of memory of a worker: for these, and for batches that the trainer still refers to.
BLOCKS = PREFETCH + 3
WATCH_S = 1.0  # between two looks at the trainer


def worker_options(preload: str) -> dict[str, Any]:
    """Arguments of a DataLoader with workers; `preload` is the module of its dataset.

    Workers are forked from a clean process, not from this one, whose threads (CUDA, BLAS, file
    systems) would not survive that. A script that has workers must therefore be importable: its
    work under `if __name__ == "__main__":`.
    """
    start = partial(_start_worker, os.getpid())
    return {"multiprocessing_context": _context(preload), "worker_init_fn": start}


def _context(preload: str) -> BaseContext:
    """Workers do not hear the signals that stop a run: the training process ends them itself.

    A terminal and Slurm send them to all processes of a job, and a run whose workers die first has
    nothing left to save. Blocked signals are inherited, by the server and then by the workers.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    stopping = {signal.SIGINT, *STOP_SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    try:
        # One thread: there are as many workers as cores.
        with ChildEnvironment():
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # it has unblocked some
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _start_worker(trainer: int, worker: int) -> None:
    # Locks of libraries (Blosc makes one) then have no name that a killed worker leaves behind.
    multiprocessing.set_start_method("fork", force=True)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sys.excepthook = _hook
    threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints no traceback where the training process has ended before it took all batches."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_with(trainer: int) -> None:
    """Ends this worker when the trainer tells it to by SIGTERM, or was killed.

    The server, which is this process's parent, outlives a trainer that was killed: it ends when its
    last worker has ended.
    """
    try:
        process = os.pidfd_open(trainer)
    except ProcessLookupError:
        os._exit(0)
    ended = select.poll()
    ended.register(process)
    while not ended.poll(0):
        told = signal.sigtimedwait({signal.SIGTERM}, WATCH_S)
        if told is not None and told.si_pid == trainer:
            break
    os._exit(0)


class _ErrorsAsItems(Dataset):
    """A data set whose errors are items: torch would send a worker's exception as a long text."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except MMEError as error:
            return error


class _ErrorsAsBatches(Dataset):
    """The same for a data set that makes whole batches."""

    def __init__(self, dataset: StandIns) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: list[tuple[int, int]]) -> Handed | MMEError:
        try:
            return self.dataset.__getitems__(keys)
        except MMEError as error:
            return error


def _same(batch: Any) -> Any:
    return batch


def _collate(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """The batch, or the first error among its items."""
    return next((item for item in items if isinstance(item, MMEError)), None) or collate(items)


class Loader(DataLoader):
    """A DataLoader that raises what a worker met, as the worker met it.

    A Ctrl-C waits until all workers are started: in between it would leave some that nobody ends,
    and the others would die with a traceback.

    blocks  the memory of the batches, where the data set makes whole batches
    """

    _queue: Any = None
    blocks: Blocks | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names a private class
        if self.blocks:
            self.blocks.restart()
        with interrupt_waits():
            batches = super().__iter__()
            self._queue = getattr(batches, "_data_queue", None)  # torch has no public name
            return _received(_raise_errors(batches), self.blocks)

    def ready(self) -> int | None:
        """Number of batches that wait to be taken. None without workers."""
        return None if self._queue is None else self._queue.qsize()


def _received(batches: Iterator[Any], blocks: Blocks | None) -> Iterator[Any]:
    for batch in batches:
        yield blocks.receive(batch) if blocks else batch


def _raise_errors(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in _name_killed(batches):
        if isinstance(batch, MMEError):
            del batches  # the error's frames would keep the workers beyond the end of the program
            raise batch
        yield batch


def _name_killed(batches: Iterator[Any]) -> Iterator[Any]:
    """Raises MMEError where a worker was killed.

    torch has a RuntimeError for it. A worker that is killed while it hands over a batch breaks the
    connection, and torch may notice that before it knows why.
    """
    try:
        yield from batches
        return
    except RuntimeError as error:
        if not re.match(r"DataLoader worker \(pid|Pin memory thread exited", str(error)):
            raise
    except (ConnectionError, EOFError) as error:
        if "in DataLoader worker" in str(error):  # the data set's own error
            raise
    del batches  # and not in the `except`: an error's frames keep the loader alive
    raise MMEError(
        "a loader process was killed (out of memory?): lower data.workers or data.batch_size, "
        "and run the same command again"
    )


def make_loader(
    dataset: Dataset,
    batches: Iterable[list[Any]],
    collate: Callable[[list[Any]], Any],
    workers: int = 0,
) -> Loader:
    """Batches of items of `dataset`, pinned where there is CUDA.

    batches  lists of the items' keys, such as a ClipSampler
    collate  a list of items -> a batch; a function of a module, so that it can be sent
    workers  processes, at most one for each core; 0 loads in this process
    """
    module = type(dataset).__module__
    return _loader(_ErrorsAsItems(dataset), batches, partial(_collate, collate), workers, module)


def make_clip_loader(
    clips: Clips,
    batches: Iterable[list[tuple[int, int]]],
    workers: int = 0,
    *,
    budget: int = 0,
    full: bool = True,
) -> Loader:
    """Coded batches (`mme_core.clips.coded`) of `clips`, each with "failed": {video: reason}.

    batches  lists of (epoch, video); workers as of `make_loader`
    budget, full  what becomes of videos that cannot be read; see `StandIns`
    """
    blocks = Blocks(min(workers, usable_cores()), BLOCKS)
    dataset = _ErrorsAsBatches(StandIns(clips, budget, full=full, blocks=blocks))
    loader = _loader(dataset, batches, _same, workers, StandIns.__module__)
    loader.blocks = blocks
    return loader


def _loader(
    dataset: Dataset,
    batches: Iterable[list[Any]],
    collate: Callable[[Any], Any],
    workers: int,
    module: str,
) -> Loader:
    options = worker_options(module) | {"prefetch_factor": PREFETCH} if workers else {}
    return Loader(
        dataset,
        batch_sampler=batches,
        num_workers=min(workers, usable_cores()),
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        # Its seeds for workers, which nothing uses, are not drawn from the training's numbers.
        generator=torch.Generator(),
        **options,
    )
