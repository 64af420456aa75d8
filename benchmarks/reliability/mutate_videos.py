"""Does a damaged video ever end a run of stage 1?

    python benchmarks/reliability/mutate_videos.py FOLDER [--mutants 2000] [--timeout 20] [--seed 0]

Damages copies of the video files below FOLDER (ten or more real ones): flipped bytes, cut ends, two
files spliced, blocks of zeros, repeated blocks, damaged heads. `mme flows --serial` then stores or
quarantines each, in batches, and `mme verify` checks the store of every batch.

Prints how many were stored, and the reasons of the others with their counts. The exit status is 1
if a batch fails or does not end, a video exceeds its time limit, a video is not in the ledger
exactly once, or a store does not verify.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from common import SPEC, Marked, Verdict, run_mme, tail

from mme_core.datasets.folder import VIDEO_SUFFIXES
from preprocess.isolate import GRACE, GRACE_S

HEAD = 4096  # bytes that count as a file's head
START_S = 120.0  # for imports, on a busy machine


def flip_bytes(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Flips 1 to 1000 bytes anywhere."""
    changed = bytearray(data)
    for _ in range(round(10 ** draw.uniform(0, 3))):
        changed[draw.randrange(len(changed))] ^= draw.randrange(1, 256)
    return bytes(changed)


def truncate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Keeps only the start of a file, or only its end."""
    cut = draw.randrange(len(data))
    return data[:cut] if draw.random() < 0.7 else data[cut:]


def splice(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Joins the start of one file and the end of another."""
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def zero_block(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Replaces up to 64 KiB by zeros, as after the loss of a disk block."""
    start = draw.randrange(len(data))
    size = min(draw.randrange(1, 1 << 16), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def repeat_block(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Repeats a block of up to 64 KiB."""
    start = draw.randrange(len(data))
    block = data[start : start + draw.randrange(1, 1 << 16)]
    return data[: start + len(block)] + block + data[start + len(block) :]


def damage_head(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Changes 1 to 30 bytes of the head or the tail, where containers keep their tables."""
    changed = bytearray(data)
    base = 0 if draw.random() < 0.6 else max(len(data) - HEAD, 0)
    for _ in range(draw.randrange(1, 31)):
        place = base + draw.randrange(min(HEAD, len(data) - base))
        changed[place] = draw.choice([0, 0xFF, draw.randrange(256)])
    return bytes(changed)


MUTATIONS: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    flip_bytes,
    truncate,
    splice,
    zero_block,
    repeat_block,
    damage_head,
)


class Hunt:
    """Runs stage 1 on batches of damaged videos, and collects the results."""

    def __init__(self, top: Path, sources: list[Path], timeout: float, seed: int) -> None:
        self.top, self.sources, self.timeout = top, sources, timeout
        self.draw = random.Random(seed)
        self.marked = Marked(top / "t")
        self.reasons: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.failed_runs: list[str] = []
        self.hangs: list[str] = []
        self.lost: list[str] = []
        self.damaged_stores: list[str] = []

    def batch(self, first: int, count: int) -> None:
        """Runs one batch, from number `first` on, in a folder that is removed afterwards."""
        videos, store, log = self.top / "videos", self.top / "store", self.top / "log"
        names = [self._make(videos, number) for number in range(first, first + count)]
        words = ["flows", "--dataset", "folder", "--root", videos, "--store", store, "--serial"]
        limit = START_S + count * (self.timeout * GRACE + GRACE_S)
        options = ["--timeout", str(self.timeout), *SPEC]
        status = run_mme(self.marked, *words, *options, log=log, limit=limit)
        where = f"mutants {first} to {first + count - 1}, seed as given"
        if status != 0:
            self.failed_runs.append(f"{where}: exit status {status}: {tail(log)}")
        self._count(store / "ledger.jsonl", names)
        verified = run_mme(self.marked, "verify", store, log=log, limit=limit)
        if verified != 0 and not self._all_quarantined(store):
            self.damaged_stores.append(f"{where}: {tail(log)}")
        for folder in (videos, store):
            shutil.rmtree(folder, ignore_errors=True)

    def _make(self, folder: Path, number: int) -> str:
        mutation = MUTATIONS[number % len(MUTATIONS)]
        source, other = self.draw.choice(self.sources), self.draw.choice(self.sources)
        data = mutation(source.read_bytes(), other.read_bytes(), self.draw)
        path = folder / mutation.__name__ / f"{number:05d}{source.suffix.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.tried[mutation.__name__] += 1
        return path.relative_to(folder).as_posix()

    def _count(self, ledger: Path, names: list[str]) -> None:
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        rows = [json.loads(line) for line in lines]
        times = Counter(row["id"] for row in rows)
        self.lost += [f"{name}: {times[name]} rows" for name in names if times[name] != 1]
        for row in rows:
            if row["status"] == "ok":
                self.stored[row["id"].partition("/")[0]] += 1
            else:
                self.reasons[_general(row["reason"])] += 1
            seconds = row["seconds"] or 0.0
            if seconds > self.timeout * GRACE + GRACE_S or "interrupted" in row["reason"]:
                self.hangs.append(f"{row['id']}: {seconds:.0f} s, {row['reason']}")

    def _all_quarantined(self, store: Path) -> bool:
        """Runs `mme verify`, unless the store has no video at all."""
        ledger = store / "ledger.jsonl"
        return ledger.exists() and '"status": "ok"' not in ledger.read_text()


def _general(reason: str) -> str:
    """Removes numbers and names from a reason, so that equal reasons are counted together."""
    return re.sub(r"'[^']*'|\d+([.,]\d+)*", "#", reason)[:110]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the real videos, searched recursively")
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=100, help="mutants in a run (100)")
    parser.add_argument("--timeout", type=float, default=20.0, help="of a video, seconds (20)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = [path for path in sorted(arguments.folder.rglob("*")) if path.is_file()]
    videos = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    sources = [path for path in videos if path.stat().st_size]
    if not sources:
        parser.error(f"no video in {arguments.folder}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        hunt = Hunt(Path(folder), sources, arguments.timeout, arguments.seed)
        for first in range(0, arguments.mutants, arguments.batch):
            hunt.batch(first, min(arguments.batch, arguments.mutants - first))
    seconds = time.monotonic() - began
    print(f"{arguments.mutants} mutants of {len(sources)} videos in {seconds:.0f} s")
    for name, count in hunt.tried.items():
        print(f"{count:>6} × {name}: {hunt.stored[name]} stored")
    for reason, count in hunt.reasons.most_common():
        print(f"{count:>6} × quarantined: {reason}")
    verdict = Verdict()
    verdict.judge("no run crashes or fails to end", hunt.failed_runs)
    verdict.judge("no video hangs", hunt.hangs)
    verdict.judge("every video is in the ledger once", hunt.lost)
    verdict.judge("every store verifies", hunt.damaged_stores)
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
