"""Is a flipped byte in a store ever read without an error?

    python benchmarks/reliability/flip_store.py [--flips 5000] [--videos 3] [--seed 0]

Makes a small store with every kind of file, and flips single bytes in a copy of it. The file keeps
its size and time, as on a failing disk. After each flip a reader reads the whole store, the ledger
is loaded, and `mme verify` checks the store. The result of a flip is one of these:

    reported   a StoreError or a line of `mme verify` names the damaged shard or file
    anew       the file is a cache or a log, and the next run writes it again with the right content
    same       the content did not change: white space in JSON, unused bytes of a zip file
    silent     the content has changed without any message
    unnamed    damage is reported, but not its place
    uncaught   an exception other than StoreError, or a MemoryError at 2 GB more than usual
    died       the process crashed, or took longer than a minute

Prints the results by kind of file, and examples of the last four, which make the exit status 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import SPEC, Marked, Verdict, make_videos, run_mme, tail
from store_content import Content

from mme_core.errors import StoreError
from preprocess.verify import verify_store

RESULTS = ("reported", "anew", "same", "silent", "unnamed", "uncaught", "died")
BAD = RESULTS[3:]
MEMORY = 2 * 2**30  # bytes of address space that a check may add
SECONDS = 60  # a check may take
REWRITTEN = ("index.npz", "ledger.jsonl")  # by a reader or the next run


@dataclass(frozen=True)
class Flip:
    """One flip: XOR of the byte at `offset` of `file` (relative to the store) with `mask`."""

    kind: str
    file: str
    offset: int
    mask: int


def make_store(top: Path, videos: int) -> tuple[Path, str]:
    """Makes a store with every kind of file and a quarantined video. Returns it and its root."""
    root = make_videos(top / "videos", videos)
    (root / "up").mkdir(exist_ok=True)
    (root / "up/broken.mp4").write_bytes(b"not a video")
    words = ["flows", "--dataset", "folder", "--root", root, "--store", top / "store", "--serial"]
    words += ["--videos-per-shard", str((videos + 2) // 2), *SPEC, "spec.camera=homography"]
    status = run_mme(Marked(top / "t"), *words, log=top / "log", limit=600)
    if status != 0:
        sys.exit(f"mme flows ended with {status}: {tail(top / 'log')}")
    return top / "store", str(root)


def draw_flips(store: Path, count: int, seed: int) -> list[Flip]:
    """Draws the same number of flips for each kind of file."""
    draw = random.Random(seed)
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        name = path.relative_to(store)
        kinds[_kind(name)].append(name.as_posix())
    flips = []
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        file = draw.choice(kinds[kind])
        offset = draw.randrange((store / file).stat().st_size)
        flips.append(Flip(kind, file, offset, draw.randrange(1, 256)))
    return flips


def _kind(name: Path) -> str:
    if name.name == "zarr.json":
        return "zarr.json of a shard" if len(name.parts) == 3 else "zarr.json of an array"
    return name.name if len(name.parts) == 1 else f"chunks of {name.parts[-2]}"


def check(store: Path, root: str, truth: Content, flip: Flip) -> tuple[str, str]:
    """Returns (result, detail) of one flip in `store`, and restores the store."""
    path = store / flip.file
    kept = {each: each.read_bytes() for each in {path, *(store / name for name in REWRITTEN)}}
    times = {each: each.stat() for each in kept}
    data = bytearray(kept[path])
    data[flip.offset] ^= flip.mask
    path.write_bytes(data)
    os.utime(path, ns=(times[path].st_atime_ns, times[path].st_mtime_ns))
    if flip.kind == "zarr.json of a shard":
        (store / "index.npz").unlink()  # else the reader has the table from it
    try:
        result, detail = _judge(store, root, truth, flip)
        around = kept[path][max(flip.offset - 24, 0) : flip.offset + 8]
        return result, f"{detail}; around it: {around!r}" if detail else ""
    finally:
        for each, content in kept.items():
            each.write_bytes(content)
            os.utime(each, ns=(times[each].st_atime_ns, times[each].st_mtime_ns))


def _judge(store: Path, root: str, truth: Content, flip: Flip) -> tuple[str, str]:
    said: list[str] = []
    seen: Content | None = None
    looks: tuple[Callable[[], Any], ...] = (
        lambda: Content.read(store, root),
        lambda: verify_store(str(store)).problems,
    )
    for name, look in zip(("reading", "mme verify"), looks):
        try:
            result = look()
        except StoreError as error:
            said.append(str(error))
        except Exception as error:
            return "uncaught", f"{name}: {type(error).__name__}: {error}"
        else:
            said += result if isinstance(result, list) else []
            seen = result if isinstance(result, Content) else seen
    if said:
        parts = Path(flip.file).parts
        place = "/".join(parts[:2]) if parts[0] == "shards" else parts[0]
        named = any(place in text for text in said)
        return ("reported", "") if named else ("unnamed", said[0])
    if seen is None or not seen.same(truth):
        return "silent", "the content has changed"
    anew = seen.stale or flip.file in REWRITTEN[:1]
    return ("anew", "") if anew else ("same", "")


def work(pipe: Connection, folder: str, root: str, flips: Sequence[Flip]) -> None:
    """Runs in its own process, and sends (result, detail) for each flip."""
    store = Path(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    truth = Content.read(store, root)
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for flip in flips:
        signal.alarm(SECONDS)  # not caught: it ends the process, also from inside a library
        pipe.send(check(store, root, truth, flip))
    signal.alarm(0)


def run(store: Path, root: str, flips: list[Flip], top: Path) -> Iterator[tuple[Flip, str, str]]:
    """Yields the results of the flips. A process that dies is replaced, and counts as "died"."""
    context = multiprocessing.get_context("spawn")
    while flips:
        copy = top / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, str(copy), root, flips))
        process.start()
        theirs.close()
        done = 0
        try:
            while done < len(flips):
                result, detail = mine.recv()
                yield flips[done], result, detail
                done += 1
        except EOFError:
            process.join()
            yield flips[done], "died", f"exit status {process.exitcode}"
            done += 1
        process.join()
        flips = flips[done:]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--flips", type=int, default=5000)
    parser.add_argument("--videos", type=int, default=3, help="in the store, besides a broken one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table: dict[str, Counter[str]] = defaultdict(Counter)
    bad = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="flip-") as folder:
        top = Path(folder)
        store, root = make_store(top, arguments.videos)
        flips = draw_flips(store, arguments.flips, arguments.seed)
        for flip, result, detail in run(store, root, flips, top):
            table[flip.kind][result] += 1
            if result in BAD:
                text = f"{flip.file}, byte {flip.offset} ^ {flip.mask:#04x}: {detail}"
                bad[result].append(text[:200])
    print(f"{'kind of file':<24}" + "".join(f"{name:>10}" for name in RESULTS))
    for kind, counts in sorted(table.items()):
        print(f"{kind:<24}" + "".join(f"{counts[name]:>10}" for name in RESULTS))
    verdict = Verdict()
    verdict.judge("no flip is silent", bad["silent"])
    verdict.judge("every report names the place", bad["unnamed"])
    verdict.judge("no exception is uncaught", bad["uncaught"])
    verdict.judge("no check crashes or hangs", bad["died"])
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
