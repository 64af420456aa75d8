"""Writes shards one after the other, or as Ray tasks, and yields the finished ones.

Ray carries only jobs (ids and paths) and small rows. The workers themselves read the videos and
write the targets. When a node is lost, Ray starts its tasks again on another node.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mme_core.errors import MMEError, UsageError
from mme_core.processes import SOURCES, ChildEnvironment, plugin_path
from preprocess.isolate import Isolated, ShardResult
from preprocess.jobs import Outcome, ShardJob
from preprocess.ray_start import prepared

if TYPE_CHECKING:
    import ray

# called with a shard's number and all its outcomes so far, while it is being written
Report = Callable[[int, list[Outcome]], None]

RETRIES = 20  # of a task whose node or worker was lost; `Isolated` finds videos that crash
TICK_S = 0.5  # between two updates of the display
_STARTS = 3  # attempts to start Ray


def run_serial(jobs: Iterable[ShardJob], report: Report) -> Generator[ShardResult]:
    """Writes one shard after the other. Closing the generator ends the child process."""
    with Isolated(plugin_path()) as isolated:
        for job in jobs:
            outcomes: list[Outcome] = []

            def note(
                outcome: Outcome, number: int = job.number, known: list[Outcome] = outcomes
            ) -> None:
                known.append(outcome)
                report(number, known)

            yield isolated.write(job, note)


def run_ray(
    jobs: Iterable[ShardJob],
    report: Report,
    workers: int | None,
    address: str | None,
    gpus_per_task: float,
) -> Generator[ShardResult]:
    """Writes shards as Ray tasks, and yields them in the order in which they finish.

    workers         number of tasks at once; None: the number of cores
    address         address of a Ray cluster; None: starts Ray on this machine, for this run only
    gpus_per_task   number of GPUs that Ray reserves for each task

    Closing the generator ends the running tasks.
    """
    with prepared(workers, address) as options:
        yield from _run(jobs, report, workers, address, gpus_per_task, options)


def _run(
    jobs: Iterable[ShardJob],
    report: Report,
    workers: int | None,
    address: str | None,
    gpus_per_task: float,
    options: dict[str, Any],
) -> Iterator[ShardResult]:
    import ray

    waiting, plugins = iter(jobs), plugin_path()
    first = next(waiting, None)
    if first is None:
        return
    waiting = itertools.chain([first], waiting)
    try:
        _connect(ray, options, address, gpus_per_task)
        task = ray.remote(num_cpus=1, num_gpus=gpus_per_task, max_retries=RETRIES)(_write_shard)
        # The board is one more process, which starts when the workers need the cores. A shard of
        # one video has nothing to report before its end.
        lasting = ray.remote(num_cpus=0, max_restarts=-1)
        board = lasting(_Board).remote() if len(first.items) > 1 else None
        running: dict[ray.ObjectRef, int] = {}
        while True:
            room = _window(ray, workers, address) - len(running)
            for job in itertools.islice(waiting, max(room, 0)):
                running[task.remote(job, board, plugins)] = job.number
            if not running:
                return
            finished, _ = ray.wait(list(running), timeout=TICK_S)
            for reference in finished:
                del running[reference]
                yield _result(ray, reference)
            if board is not None:
                _relay(ray, board, report, running)
    finally:
        # This ends the tasks too. A `ray.cancel` before it may crash this process if a task
        # finishes at the same moment ("Tried to complete task that was not pending").
        _shut_down(ray)


def _shut_down(ray: Any) -> None:
    """Ends Ray. If a signal cut this off, processes and files would stay."""
    with _signals_held_back():
        ray.shutdown()


def _connect(ray: Any, options: dict[str, Any], address: str | None, gpus_per_task: float) -> None:
    try:
        # Ray's workers import first from the folder in which Ray was started.
        with _signals_held_back(), ChildEnvironment(), contextlib.chdir(SOURCES):
            _start(ray, options)
    except ConnectionError as error:
        raise UsageError(
            f"no Ray cluster at --address {address}, or it needs a token (RAY_AUTH_MODE=token and "
            "~/.ray/auth_token): start one with `ray start --head`, or leave --address out"
        ) from error
    except Exception as error:  # Ray raises RuntimeError, RayError and plain Exception
        raise MMEError(
            f"Ray did not start ({_first_line(error)}): check free disk space, `ulimit -u` and "
            "free memory, then try again, or use --serial"
        ) from error
    there = ray.cluster_resources().get("GPU", 0)
    if gpus_per_task > there and address is None:
        raise UsageError(f"--gpus-per-task {gpus_per_task:g}: this machine has {there:g} GPUs")


def _start(ray: Any, options: dict[str, Any]) -> None:
    """Starts Ray. Ray gives its processes 30 s, which is too little on a busy machine: so retry."""
    for attempt in range(_STARTS):
        try:
            # `_connect` turns Ray's errors into one line.
            ray.init(**options, logging_level="CRITICAL", log_to_driver=True)
        except Exception as error:
            if attempt == _STARTS - 1 or "timed out" not in str(error):
                raise
            ray.shutdown()
        else:
            return


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Delays signals during the start and the end of Ray, and restores our handlers afterwards.

    Ray crashes when its start is interrupted, and it installs its own SIGTERM handler.
    """
    held: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda number, _: held.append(number)) for kind in signals}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        for number in held[:1]:
            signal.raise_signal(number)


def _window(ray: Any, workers: int | None, address: str | None) -> int:
    """The number of tasks to hand to Ray: two for each core, so that no worker waits.

    It is computed each time, because the nodes of a cluster come and go. On a cluster, `workers`
    limits the running tasks; Ray cannot do that, so it limits the queue too.
    """
    if address is not None and workers is not None:
        return workers
    return 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)


def _result(ray: Any, reference: ray.ObjectRef) -> ShardResult:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MMEError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise MMEError(f"a Ray worker was lost too often: {error}; run again to go on") from error


_isolated: Isolated | None = None  # one for each Ray worker, which runs many tasks


def _write_shard(job: ShardJob, board: Any, plugins: list[str]) -> ShardResult:
    """The Ray task."""
    global _isolated
    if _isolated is None:
        _isolated = Isolated(plugins)
        atexit.register(_isolated.stop)
    outcomes: list[Outcome] = []
    last = 0.0

    def note(outcome: Outcome) -> None:
        nonlocal last
        outcomes.append(outcome)
        if board is not None and time.monotonic() - last > TICK_S:
            last = time.monotonic()
            board.write.remote(job.number, outcomes)

    return _isolated.write(job, note)


class _Board:
    """Ray actor that collects the progress of all tasks; the driver reads it for its display."""

    def __init__(self) -> None:
        self._news: dict[int, list[Outcome]] = {}

    def write(self, number: int, outcomes: list[Outcome]) -> None:
        self._news[number] = outcomes

    def take(self) -> dict[int, list[Outcome]]:
        news, self._news = self._news, {}
        return news


def _relay(ray: Any, board: Any, report: Report, running: dict[Any, int]) -> None:
    try:
        news = ray.get(board.take.remote(), timeout=TICK_S)
    except ray.exceptions.RayError:  # it is slow, or was lost: that is the display's alone
        return
    still = set(running.values())
    for number, outcomes in news.items():
        if number in still:
            report(number, outcomes)
