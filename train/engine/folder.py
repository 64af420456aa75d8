"""The output folder of a command: whether it is free, its lock, and the recipe in it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from mme_core.errors import UsageError
from mme_core.store.outside import check_outside
from mme_core.weights.run_folder import CHECKPOINTS, CONFIG, checkpoints
from train.engine.distributed import Ranks
from train.engine.runlog import RunLog
from train.engine.writers import start_writers
from train.recipes import loading
from train.recipes.classification import FinetuneConfig
from train.recipes.commands import command_of, writer_of
from train.recipes.pretraining import PretrainConfig

LOCK = ".lock"
_NO_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)  # what file systems without flock answer

# A resumed run may change these keys: at most they change random draws. The sampler checks that
# batch_size × processes × accumulate stays the same.
FREE = (
    "out",
    "device",
    "resume",
    "compile",
    "profile",
    "nonfinite_budget",
    "data.bad_budget",
    "data.batch_size",
    "data.resident",
    "data.workers",
    "data.stage",
    "optim.accumulate",
    "checkpoint.",
    "eval.",
    "log.",
)


def check_command(config: Any) -> Any:
    """The configuration of an earlier run of this command in `out`; None where there is none.

    Raises UsageError where another command wrote into `out`, whose output would be lost, and where
    `out` lies in a store.
    """
    check_outside(config.out, "out=")
    path = Path(config.out) / CONFIG
    if not path.exists():
        return None
    try:
        values = loading.read_yaml(str(path))
        mine, writer = command_of(config), writer_of(values.keys())
        if writer == mine:
            return loading.merge(type(config), [("", values)])
    except UsageError as error:
        raise UsageError(
            f"out={config.out} cannot be used again ({path}: {error}): choose another out=…"
        ) from error
    holds = f"the output of `mme {writer}`" if writer else f"a {CONFIG} that no command here wrote"
    raise UsageError(
        f"out={config.out} holds {holds}: choose another folder, such as out={config.out}/{mine}"
    )


def check_folder(config: PretrainConfig | FinetuneConfig) -> None:
    """Raises UsageError where `out` holds another command's output or a run of another recipe."""
    theirs = check_command(config)
    if config.resume == "force":
        return
    if theirs is None:
        _check_unnamed(config.out)
        return
    changed = [
        key
        for key in loading.differing_keys(loading.to_dict(config), loading.to_dict(theirs))
        if not key.startswith(FREE)
    ]
    if changed:
        raise UsageError(
            f"out={config.out} holds another run; these keys differ: {', '.join(changed[:3])} (see "
            f"{Path(config.out) / CONFIG}): choose another out=…, or resume it with the changed "
            "recipe by resume=force"
        )


def _check_unnamed(out: str) -> None:
    """Raises UsageError for checkpoints in a folder that does not say of which recipe they are."""
    if checkpoints(Path(out)):
        raise UsageError(
            f"out={out} holds {CHECKPOINTS} without the {CONFIG} of their run: put it back, choose "
            "another out=…, or resume them with this recipe by resume=force"
        )


@contextmanager
def lock(out: Path, ranks: Ranks, warn: Callable[[str], None]) -> Iterator[None]:
    """Holds OUT/.lock while a run writes into OUT; the main process does it for all.

    Raises UsageError in every process where another run holds it, or OUT cannot be written. The
    kernel frees the lock when its process ends, however it ends; the file stays. Calls `warn`
    where the file system has no locks.
    """
    file: FileIO | None = None
    problem = ""
    if ranks.main:
        try:
            out.mkdir(parents=True, exist_ok=True)
            # Without a buffer, which a full disk would leave for close() to write once more.
            file = (out / LOCK).open("ab", buffering=0)
            _take(file)
        except BlockingIOError:
            problem = (
                f"out={out} is in use by another run ({_holder(out)}): stop that one, or choose "
                "another out=…"
            )
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warn(f"out={out} cannot be locked: do not start a second run there")
            else:
                problem = _not_writable(str(out), error)
    try:
        problem = ranks.gather(problem)[0]
        if problem:
            raise UsageError(problem)
        yield
    finally:
        if file:
            file.close()


def check_shared(out: Path, ranks: Ranks, done: int) -> None:
    """Raises UsageError in every process where they would not resume after the same step.

    done  steps of the checkpoint that this process found. On several machines with an OUT of their
          own, each process would take other steps and learning rates than the others.
    """
    found = ranks.gather(done)
    if len(set(found)) > 1:
        raise UsageError(
            f"out={out}: the processes found checkpoints of different steps "
            f"({', '.join(map(str, found))}): choose a folder that all machines share"
        )


def _take(file: FileIO) -> None:
    """Locks the file and writes into it who did. Raises BlockingIOError where it is locked."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _holder(out: Path) -> str:
    return (out / LOCK).read_text(errors="replace").strip() or "which has just started"


def write_config(config: Any) -> None:
    """The resolved recipe beside the run's output; comments say which defaults it changes."""
    folder = Path(config.out)
    aside = folder / f".{CONFIG}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        head = "".join(f"# {line}\n" for line in loading.changed_keys(config))
        aside.write_text(head + loading.to_yaml(config))
        aside.replace(folder / CONFIG)
    except OSError as error:
        raise UsageError(_not_writable(config.out, error)) from error


def _not_writable(out: str, error: OSError) -> str:
    return f"out={out}: cannot be written ({error.strerror}); choose another folder"


def open_log(
    config: PretrainConfig | FinetuneConfig, ranks: Ranks, done: int, warnings: list[str]
) -> RunLog:
    """Writes the recipe into the run's folder and opens its log, to go on after step `done`.

    `warnings` become the log's first lines.
    """
    ranks.gather(None)  # every process has read the folder before the main one writes into it
    if ranks.main:
        write_config(config)
    run, recipe = Path(config.out), loading.to_dict(config)
    writers = start_writers(config.log, run, recipe, done) if ranks.main else []
    log = RunLog(run, ranks.main, writers, after=done)
    for text in warnings:
        log.warn(text)
    return log


def check_suffix(path: Path, suffix: str) -> None:
    """Raises UsageError where the name of a file to be written ends in something else."""
    if path.suffix != suffix:
        raise UsageError(f"-o {path}: the name must end in {suffix}")
