"""`make demo`: the whole system on generated videos, in minutes on two cores.

    python -m train.demo --data data --out runs/demo

Generates videos whose class is their motion alone, computes their targets, pre-trains a tiny
encoder, probes it, fine-tunes it with and without that pre-training, and ends in one table and a
few pictures. It is a smoke test: the figures say that everything runs and learns, not how well the
method works. The same command resumes a demo that was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mme_core.terminal import styled
from mme_core.weights.run_folder import PICTURES, PROBE, read_metrics

VIDEOS = 200  # one in five is held out
# Small frames and short trajectories: minutes, not hours.
SPEC = ("spec.stride=2", "spec.length=4", "spec.short_side=128", "spec.long_side=160")
PRETRAINED, RANDOM = "pre-trained", "random weights"


@dataclass(frozen=True)
class Places:
    """The folders and files of the demo."""

    data: Path
    out: Path

    @property
    def videos(self) -> Path:
        return self.data / "demo"

    def store(self, split: str) -> Path:
        return self.data / "stores" / f"demo-{split}"

    @property
    def tracks(self) -> Path:
        return self.out / "tracks.png"

    @property
    def stores(self) -> list[str]:
        return [f"store={self.store('train')}", f"val_store={self.store('val')}"]

    def finetuned(self, weights: str) -> Path:
        return self.out / f"finetune-{'pretrained' if weights == PRETRAINED else 'random'}"


def steps(places: Places) -> list[tuple[str, list[str]]]:
    """The steps in order: (title, arguments of `mme`)."""
    out = places.out

    def flows(split: str) -> list[str]:
        where = ["--root", str(places.videos), "--store", str(places.store(split))]
        set_ = ["--dataset", "demo", "--split", split, "--demo-videos", str(VIDEOS)]
        return ["flows", *set_, *where, *SPEC]

    def finetune(weights: str) -> list[str]:
        init = out / "pretrain" if weights == PRETRAINED else "none"
        words = [f"init={init}", f"out={places.finetuned(weights)}", *places.stores]
        return ["finetune", "--config", "finetune/demo.yaml", *words]

    picture = ["--layer", "tracks", "--source", "store", "-o", str(places.tracks)]
    pretrain = ["--config", "pretrain/demo.yaml", *places.stores, f"out={out / 'pretrain'}"]
    probe = ["--config", "probe/demo.yaml", *places.stores, f"out={out / 'probe'}"]
    return [
        ("videos and targets, training", flows("train")),
        ("videos and targets, held out", flows("val")),
        ("a picture of tracked points", ["visualize", str(places.store("val")), *picture]),
        ("pre-training", ["pretrain", *pretrain]),
        ("probes of the frozen encoder", ["probe", *probe, f"init={out / 'pretrain'}"]),
        ("fine-tuning from random weights", finetune(RANDOM)),
        ("fine-tuning from the pre-trained encoder", finetune(PRETRAINED)),
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="for videos and stores")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="for everything else")
    arguments = parser.parse_args(argv)
    places = Places(arguments.data, arguments.out)
    places.out.mkdir(parents=True, exist_ok=True)
    console, began = Console(highlight=False), time.monotonic()
    plan = steps(places)
    for number, (title, words) in enumerate(plan, 1):
        spent = f"{time.monotonic() - began:.0f} s so far"
        console.rule(f"[bold]{number}/{len(plan)} {title}[/] ({spent})", align="left")
        status = _run(words)
        if status:
            text = f"make demo: `mme {' '.join(words)}` ended with status {status}"
            console.print(styled(text, "red"))
            return status
    console.rule(f"[bold]result[/] ({time.monotonic() - began:.0f} s)", align="left")
    figure = shutil.copy(_last_panel(places), places.out / "figure4.png")
    console.print(result_table(places))
    console.print(styled(f"tracked points: {places.tracks}"))
    console.print(styled(f"masked frames, true and predicted trajectories, original: {figure}"))
    return 0


def _run(words: list[str]) -> int:
    """Returns the exit status of `mme WORDS`, which saves and stops on Ctrl-C and SIGTERM."""
    process = subprocess.Popen([sys.executable, "-P", "-m", "mme_core", *words])
    # A terminal sends Ctrl-C to the step too. SIGTERM reaches this process alone.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda told, _: process.send_signal(told)),
    }
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def result_table(places: Places) -> Table:
    """Probe and fine-tuning accuracy, random weights beside pre-trained ones."""
    probe = json.loads((places.out / "probe" / PROBE).read_text())
    classes = probe["classes"]
    table = Table(
        title=f"A SMOKE TEST, not a result: {probe['test_videos']} test videos, "
        f"{probe['training_videos']} training videos, {classes} classes, one seed "
        f"(chance {1 / classes:.0%})",
        title_justify="left",
    )
    kinds = [kind for kind in ("linear", "attentive", "knn") if kind in probe["rows"][0]]
    for column in ("weights", *(f"{kind} probe" for kind in kinds), "fine-tuned"):
        table.add_column(column)
    on_videos = {row["weights"]: row for row in probe["rows"] if row["clip"] == "video"}
    for name, row in on_videos.items():
        weights = RANDOM if name == RANDOM else PRETRAINED
        final = read_metrics(places.finetuned(weights))[-1]["final_top1"]
        accuracies = [row[kind]["accuracy"] for kind in kinds]
        table.add_row(weights, *(f"{value:.0%}" for value in [*accuracies, final]))
    return table


def _last_panel(places: Places) -> Path:
    return sorted((places.out / "pretrain" / PICTURES).glob("step-*-0.png"))[-1]


if __name__ == "__main__":
    sys.exit(main())
