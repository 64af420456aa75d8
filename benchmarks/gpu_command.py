"""The cases of `benchmarks/gpu_train.py` that run `mme pretrain` in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_parts import STREAMED, Result

if TYPE_CHECKING:
    from gpu_cases import Bench

# model.residual of each case; "": the recipe's own
PRETRAIN = {
    "pretrain": "",
    "pretrain-bf16": "bf16",
    "pretrain-fp32": "fp32",
    "pretrain-resident": "",
}


def pretrain(bench: Bench, case: str) -> Result:
    """The median of the rows of a run but the first two."""
    bench.need_store()
    steps, every = (100, 5) if bench.gpu else (6, 1)
    words = [f"optim.steps={steps}", f"log.every={every}", "checkpoint.every=100000"]
    words += [f"profile={3 if bench.gpu else 1}", f"data.workers={bench.args.workers}"]
    words += [f"model.residual={PRETRAIN[case]}"] if PRETRAIN[case] and bench.gpu else []
    if case != "pretrain-resident":
        words += STREAMED
    command = [sys.executable, "-m", "mme_core", "pretrain", *bench.words(*words)]
    start = follow(command)
    out = bench.folder / f"run-{bench.runs}"
    lines = (out / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "clips_per_s" in row][2:]
    # The profiler slows down the steps that it watches, which come first.
    rows = rows[len(rows) // 3 :]
    kernels = (out / "profile" / "kernels.txt").read_text()
    if bench.args.profile:
        Path(bench.args.profile, f"kernels-{case}.txt").write_text(kernels)
    print("\n".join(kernels.splitlines()[: bench.args.rows]), flush=True)

    def median(name: str) -> float | None:
        values = [row[name] for row in rows if name in row]
        return statistics.median(values) if values else None

    rate = median("clips_per_s") or 0.0
    return Result(
        case,
        rate,
        1000 * bench.args.batch / max(rate, 1e-9),
        idle=median("device_idle") if bench.gpu else median("data_wait"),
        waited=median("data_wait"),
        mfu=median("mfu"),
        memory_gb=median("memory"),
        start_s=start,
        loss=rows[-1]["loss"],
    )


def follow(command: list[str]) -> float:
    """Runs a command and repeats what it says, with seconds; those of its first step.

    Raises RuntimeError where it fails.
    """
    began, first = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                seconds = time.perf_counter() - began
                first = first or (seconds if text.startswith("step") else 0.0)
                print(f"{seconds:6.1f} s  {text}", end="", flush=True)
        finally:
            process.terminate()
    if process.returncode:
        raise RuntimeError(f"mme pretrain ended with status {process.returncode}")
    return first
