"""Copies of a store's shards on a local disk, for stores on slow or far ones.

    python -P -m train.data.staging STORE FOLDER [--limit-gb N]        copies, and ends

With `data.stage=FOLDER` a run does this beside its training (`open_staged`): a clip is read from
the copy of its shard as soon as that is complete, else from the store. Every epoch reads all
videos once, so no shard is worth more than another, and one that makes room for the next would be
gone when its turn comes again. So copies are made until the disk's share is full, and stay.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mme_core.errors import MMEError, UsageError
from mme_core.io.place import Place, local_path, open_place
from mme_core.processes import child_environment, die_with_parent
from mme_core.store import TargetStore
from mme_core.store.layout import shard_name
from mme_core.store.outside import check_outside
from mme_core.store.reader import ChunkReader
from mme_core.terminal import plain

KEEP_FREE = 0.05  # share of the local disk that is never filled
_STAMP = "copied-from"  # in a copy: the stamp of the shard it was made from


@dataclass(frozen=True)
class StagedFiles:
    """A store's files, read from the copies where they are, else from the store itself."""

    store: Place
    copies: Place

    def at(self, name: str) -> str:
        return self.store.at(name)

    def read_tail(self, name: str, size: int) -> bytes:
        try:
            return self.copies.read_tail(name, size)
        except FileNotFoundError:
            return self.store.read_tail(name, size)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        try:
            return self.copies.read_range(name, start, end)
        except FileNotFoundError:
            return self.store.read_range(name, start, end)


class StagedStore(TargetStore):
    """A TargetStore that reads clips from local copies where they exist."""

    def __init__(self, url: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
        super().__init__(url)
        copies = copies_folder(self.url, folder)
        source = open_place(self.url)
        _remove_stale(source, copies)
        self._reader = ChunkReader(StagedFiles(source, open_place(copies)))


@dataclass(frozen=True)
class Staged:
    """What a call of `copy_shards` left on the local disk.

    shards  number of shards that are copied, of `of` shards in the store
    size    of all copies, bytes
    full    why no further shard found room; "" where none was refused
    """

    shards: int
    of: int
    size: int
    full: str = ""


def open_staged(
    url: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    limit_gb: float | None = None,
    keep_free: float = KEEP_FREE,
) -> TargetStore:
    """The store, read from `folder` as far as it is copied; a process of its own goes on copying.

    That process ends with this one, and says on stderr where a shard finds no room; `limit_gb` and
    `keep_free` as of `copy_shards`. Where several processes of a machine ask for the same copies,
    one of them makes them. Raises StoreError as TargetStore does, and UsageError where `folder`
    cannot be written to.
    """
    store = StagedStore(url, folder)
    _prepare(copies_folder(store.url, folder), folder)
    command = [sys.executable, "-m", "train.data.staging", store.url, os.fspath(folder)]
    command += ["--quiet", "--with", str(os.getpid()), "--keep-free", str(keep_free)]
    if limit_gb is not None:
        command += ["--limit-gb", str(limit_gb)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, env=child_environment()
    )
    atexit.register(process.terminate)
    return store


def copies_folder(url: str, folder: str | os.PathLike[str]) -> Path:
    """Where the copies of one store lie below `folder`, laid out as in the store."""
    path = local_path(url)
    full = os.fspath(url).rstrip("/") if path is None else str(path.resolve())
    return Path(folder) / f"{Path(full).name}-{hashlib.sha256(full.encode()).hexdigest()[:12]}"


def copy_shards(
    url: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    limit_gb: float | None = None,
    keep_free: float = KEEP_FREE,
    go_on: Callable[[], bool] = lambda: True,
    report: Callable[[Staged], None] = lambda staged: None,
) -> Staged | None:
    """Copies a store's shards, in their order, until all are there or the limit is reached.

    limit_gb   of all copies of this store together, 10⁹ bytes
    keep_free  share of the disk that stays free besides
    go_on      asked before every file; where it says no, the copy ends
    report     called after every shard

    A copy appears complete or not at all. Returns None where another process is at it. Raises
    StoreError for a store that cannot be read and UsageError for a folder that cannot be written.
    """
    store = TargetStore(url)
    source, copies = open_place(store.url), copies_folder(store.url, folder)
    _prepare(copies, folder)
    with _lock(copies / "lock") as mine:
        if not mine:
            return None
        for partial in (copies / "shards").glob(".*"):
            shutil.rmtree(partial, ignore_errors=True)
        _remove_stale(source, copies)
        numbers = sorted({int(number) for number in store.videos["shard"]})
        kept = [n for n in numbers if (copies / shard_name(n)).exists()]
        staged = Staged(len(kept), len(numbers), sum(_size(copies / shard_name(n)) for n in kept))
        for number in numbers:
            if number in kept:
                continue
            name = shard_name(number)
            stamp = source.stamps([f"{name}/zarr.json"])[0]  # first: a shard that changes now
            files = source.files(name)  # leaves a copy that is seen to be stale
            size = sum(files.values())
            if full := _no_room(copies, staged.size, size, limit_gb, keep_free):
                return replace(staged, full=full)
            if not _copy(source, name, files, stamp, copies, go_on):
                break
            staged = Staged(staged.shards + 1, staged.of, staged.size + size)
            report(staged)
        return staged


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.data.staging", description="copy a store's shards to a local disk"
    )
    parser.add_argument("store", help="path or URL")
    parser.add_argument("folder", help="on the local disk; a run reads it with data.stage=FOLDER")
    parser.add_argument("--limit-gb", type=float, metavar="N", help="of all copies together")
    parser.add_argument(
        "--keep-free",
        type=float,
        metavar="SHARE",
        default=KEEP_FREE,
        help="of the disk that is never filled (%(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--with", type=int, metavar="PID", help="end when this process has ended")
    return parser


def main(argv: list[str]) -> int:
    options = vars(_parser().parse_args(argv))

    if options["with"] is not None:
        die_with_parent(options["with"])

    def say(staged: Staged) -> None:
        if not options["quiet"]:
            print(f"{staged.shards} of {staged.of} shards, {staged.size / 1e9:.2f} GB", flush=True)

    def go_on() -> bool:
        return options["with"] is None or os.getppid() == options["with"]

    try:
        staged = copy_shards(
            options["store"],
            options["folder"],
            options["limit_gb"],
            options["keep_free"],
            go_on,
            say,
        )
    except MMEError as error:
        print(f"staging: {plain(error)}; clips are read from the store itself", file=sys.stderr)
        return 1
    if staged and staged.full:
        print(
            f"staging: {staged.shards} of {staged.of} shards are copied: {staged.full}; the others "
            "are read from the store itself",
            file=sys.stderr,
        )
    return 0


def _prepare(copies: Path, folder: str | os.PathLike[str]) -> None:
    """Makes the folder of a store's copies below `folder`."""
    check_outside(folder, "data.stage=")
    try:
        (copies / "shards").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"data.stage: cannot write to {copies.parent}: {error.strerror}; name a folder on a "
            "local disk"
        ) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether this process is the only one here; the system frees the lock when it dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _remove_stale(source: Place, copies: Path) -> None:
    """Removes copies of shards that were written anew or removed since."""
    names = [f"shards/{path.name}" for path in sorted((copies / "shards").glob("[0-9]*.zarr"))]
    for name, stamp in zip(names, source.stamps([f"{name}/zarr.json" for name in names])):
        with contextlib.suppress(FileNotFoundError):  # another process may do the same
            if (copies / name / _STAMP).read_text() != stamp:
                # Renamed first: a reader finds all of a copy, or none and reads the store.
                aside = copies / "shards" / f".old-{uuid.uuid4().hex}"
                (copies / name).rename(aside)
                shutil.rmtree(aside, ignore_errors=True)


def _no_room(copies: Path, used: int, size: int, limit_gb: float | None, keep_free: float) -> str:
    """Why `size` more bytes must not be written, "" where they may."""
    if limit_gb is not None and used + size > limit_gb * 1e9:
        return f"{used / 1e9:.2f} GB are used of the limit of {limit_gb:g} GB"
    disk = shutil.disk_usage(copies)
    if size > disk.free - keep_free * disk.total:
        return (
            f"the disk of {copies.parent} has {disk.free / 1e9:.2f} GB free, and "
            f"{keep_free * disk.total / 1e9:.2f} GB ({keep_free:.0%} of it) stay free"
        )
    return ""


def _copy(
    source: Place,
    name: str,
    files: Iterable[str],
    stamp: str,
    copies: Path,
    go_on: Callable[[], bool],
) -> bool:
    """Copies one shard; False where there was no wish to go on, and nothing is left of it."""
    partial = copies / "shards" / f".partial-{uuid.uuid4().hex}"
    try:
        for file in files:
            if not go_on():
                return False
            source.fetch(f"{name}/{file}", partial / file)
        (partial / _STAMP).write_text(stamp)
        partial.rename(copies / name)
    except OSError as error:
        raise MMEError(
            f"copying {source.at(name)} to {copies}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _size(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != _STAMP)
    return sum(path.stat().st_size for path in files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
