"""Do memory and the number of open files stay constant over a long run?

    python benchmarks/reliability/soak.py [--videos 1000] [--windows 50000]

One worker of `mme flows` processes --videos small videos. Then one loader process reads --windows
windows of their store. The resident memory and the open files of each process are sampled, and a
line is fitted to the second half. In the first half the allocator's free memory still grows: in the
decoding process by 80 MB over 400 small videos.

Prints the first and last values of each process, and the slopes: MB and files for 1000 videos or
windows. The exit status is 1 if a slope is above --mb-per-1000-videos, --mb-per-1000-windows or
--files-per-1000.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from common import SPEC, Marked, Verdict, make_videos, tail

DISTINCT = 20  # videos that are made; the others are links to them
PER_SHARD = 10
BATCH = 8
SAMPLES = 200  # of a run of the loader


@dataclass
class Series:
    """Memory and open files of one process, by the number of videos or windows done."""

    name: str
    done: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def sample(self, done: int, process: psutil.Process) -> None:
        """Adds a sample. Of several samples at one number the largest counts."""
        with suppress(psutil.NoSuchProcess):
            memory, files = process.memory_info().rss / 1e6, process.num_fds()
            if not memory:
                return  # it has ended, and its parent has not collected it yet
            if self.done and self.done[-1] == done:
                self.megabytes[-1] = max(self.megabytes[-1], memory)
                self.files[-1] = max(self.files[-1], files)
                return
            self.done.append(done)
            self.megabytes.append(memory)
            self.files.append(files)

    def slopes(self) -> tuple[float, float]:
        """Returns the slopes of the second half: MB and files for 1000 videos or windows."""
        start = len(self.done) // 2
        if len(self.done) - start < 3:
            sys.exit(f"{self.name}: {len(self.done)} samples are too few for a slope; take more")
        fits = [np.polyfit(self.done[start:], y[start:], 1) for y in (self.megabytes, self.files)]
        return 1000 * float(fits[0][0]), 1000 * float(fits[1][0])

    def judge(self, verdict: Verdict, most_mb: float, most_files: float) -> None:
        megabytes, files = self.slopes()
        text = (
            f"{self.name}: {self.megabytes[0]:.0f} to {self.megabytes[-1]:.0f} MB, "
            f"{self.files[0]} to {self.files[-1]} files; {megabytes:+.3f} MB and {files:+.3f} "
            "files for 1000"
        )
        over = [f"{megabytes:.3f} MB is above {most_mb:g}"] if megabytes > most_mb else []
        over += [f"{files:.3f} files are above {most_files:g}"] if files > most_files else []
        verdict.judge(text, over)


def make_links(top: Path, count: int) -> Path:
    """Makes a folder of `count` videos, of which DISTINCT are different."""
    made = sorted(make_videos(top / "made", min(count, DISTINCT)).glob("*/*.mp4"))
    for number in range(count):
        source = made[number % len(made)]
        link = top / "videos" / source.parent.name / f"{number:06d}.mp4"
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, link)
    return top / "videos"


def soak_worker(marked: Marked, root: Path, store: Path, log: Path) -> list[Series]:
    """Samples one worker: its decoding process and its Ray process."""
    words = ["flows", "--dataset", "folder", "--root", root, "--store", store, *SPEC]
    words += ["--workers", "1", "--videos-per-shard", str(PER_SHARD)]
    driver = marked.start("-m", "mme_core", *words, log=log)
    child, worker = Series("decoding process"), Series("its Ray worker")
    decoder: psutil.Process | None = None
    owner: psutil.Process | None = None
    ledger = store / "ledger.jsonl"
    while driver.poll() is None:
        if decoder is None or not decoder.is_running():
            found = (each for each in marked.processes() if _decodes(each))
            decoder = next(found, None)
            owner = decoder and decoder.parent()
        if decoder is not None and owner is not None and ledger.exists():
            done = len(ledger.read_bytes().splitlines())
            child.sample(done, decoder)
            worker.sample(done, owner)
        time.sleep(0.1)
    if driver.returncode != 0:
        sys.exit(f"mme flows ended with {driver.returncode}: {tail(log)}")
    return [child, worker]


def _decodes(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "preprocess.child" in process.cmdline()
    return False


def soak_loader(url: Path, windows: int) -> list[Series]:
    """Samples one loader process, and this process, which takes its batches."""
    from mme_core.clips.dataset import ClipDataset, collate
    from train.data.loader import make_loader
    from train.data.sampler import ClipSampler

    clips = ClipDataset(url, frames=8, image_size=48)
    sampler = ClipSampler(len(clips), min(len(clips), BATCH))
    batches = iter(make_loader(clips, sampler, collate, workers=1))
    loader, taker = Series("loader process"), Series("process that takes the batches")
    count = max(windows // sampler.batch_size, 1)
    for number in range(count):
        next(batches)
        if number % max(count // SAMPLES, 1) == 0:
            (worker,) = multiprocessing.active_children()
            loader.sample(number * sampler.batch_size, psutil.Process(worker.pid))
            taker.sample(number * sampler.batch_size, psutil.Process())
    return [loader, taker]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=50_000)
    parser.add_argument("--mb-per-1000-videos", type=float, default=5.0, metavar="MB")
    parser.add_argument("--mb-per-1000-windows", type=float, default=0.5, metavar="MB")
    parser.add_argument("--files-per-1000", type=float, default=0.5, metavar="N")
    options = parser.parse_args()
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        top = Path(folder)
        marked = Marked(top / "t")
        root = make_links(top, options.videos)
        try:
            worker = soak_worker(marked, root, top / "store", top / "log")
        finally:
            marked.kill_all()
        print(f"{options.videos} videos through one worker")
        for series in worker:
            series.judge(verdict, options.mb_per_1000_videos, options.files_per_1000)
        print(f"{options.windows} windows through one loader")
        for series in soak_loader(top / "store", options.windows):
            series.judge(verdict, options.mb_per_1000_windows, options.files_per_1000)
    return verdict.status()


if __name__ == "__main__":
    sys.exit(main())
