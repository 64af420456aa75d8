"""Speed of pre-training on one GPU, as one table with ratios.

    python benchmarks/gpu_train.py --store STORE            # all cases; a small store is enough
    python benchmarks/gpu_train.py --cases eager whole      # batches that stay on the device
    python benchmarks/gpu_train.py --size tiny --image-size 64 --batch 2 --steps 2   # smoke test

The recipe is `pretrain/k400.yaml`: ViT-B, 16 × 224², 70 % masked, zoom, batch 128. The cases:

    plain           a plain loop (`benchmarks/plain.py`): boolean masks, fp16, ready targets
    eager … bf16    our step on one batch that stays on the device: not compiled; only the model
                    compiled; the whole step compiled; the same with bf16 tokens between blocks
    whole-256 …     the same with 256 clips
    zoom            the whole step on a batch of the store with zoom that stays on the device
    store-N …       the compiled step fed from the store by N workers; with zoom unless the name
                    says otherwise
    resident        the same from a store that lies in the device's memory
    pretrain …      `mme pretrain` itself, by its own log, streaming from the disk; -fp32 and -bf16
                    set model.residual, -resident keeps the store on the device
    forward         the encoder alone, all tokens, on clips that stay on the device
    features        the same fed from the store, as `mme features` does it
    try-…           options of the compiler and of attention on a model of four blocks, which
                    compiles faster. Compare them with try-base

A case that fails or takes longer than --limit seconds is reported and the others go on; after
--budget seconds none is started. --json gets a line for each case, and --profile a table of kernels
for each compiled one. The videos of a small --store are copied until there are --videos of them. A
step is that of `mme pretrain`: targets, forward, loss, backward, AdamW. "idle" is the share of time
in which the device had nothing to do between steps, by events; "host" is what the host takes to
hand a step to the device. MFU counts the paper's arithmetic (`mme_core.flops`), three times the
forward's. The results are in docs/measurements/model.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_parts import Result


def main() -> None:
    # Not at the top: each loader worker imports this file anew when it starts.
    import torch
    from gpu_cases import CASES, Bench

    args = _parse(CASES)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        args.folder = args.folder or folder
        bench = Bench(args)
        name = torch.cuda.get_device_name() if bench.gpu else "CPU"
        print(f"{name}, torch {torch.__version__}, {vars(args)}", flush=True)
        results: list[Result] = []
        for case in args.cases:
            began = time.perf_counter()
            left = args.budget - round(began - started)
            if left < 5:
                print(f"{case}: not run, --budget is spent", flush=True)
                continue
            try:
                with time_limit(min(args.limit, left)):
                    result = bench.run(case)
            except Exception as error:  # of any kind: the other cases are worth having
                text = " ".join(str(error).split())[:300]
                print(f"{case}: {type(error).__name__}: {text}", flush=True)
                continue
            finally:
                bench.forget(case)
            results.append(result)
            print(f"{line(result)}   took {time.perf_counter() - began:.0f} s", flush=True)
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
        print_table(results)


def line(result: Result) -> str:
    parts = [f"{result.case:<18} {result.clips_per_s:7.1f} clips/s {result.step_ms:7.1f} ms"]
    for name, value, form in (
        ("idle", result.idle, "{:.1%}"),
        ("host", result.host_ms, "{:.0f} ms"),
        ("MFU", result.mfu, "{:.1%}"),
        ("memory", result.memory_gb, "{:.1f} GB"),
        ("start", result.start_s, "{:.0f} s"),
        ("loss", result.loss, "{:.4f}"),
    ):
        parts.append(f"{name} {form.format(value)}" if value is not None else f"{name} -")
    return "  ".join([*parts, *(f"waits at {place}" for place in result.waits)])


def print_table(results: list[Result]) -> None:
    """Markdown; ratios to the plain loop and to the first case of each kind."""
    rates = {result.case: result.clips_per_s for result in results}
    print("\n| case | clips/s | × plain | × whole | × try-base | idle | MFU | GB | start, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for r in results:
        ratios = [
            f"{r.clips_per_s / rates[base]:.2f}" if base in rates and fits else ""
            for base, fits in (
                ("plain", not r.case.startswith("try")),
                ("whole", not r.case.startswith("try")),
                ("try-base", r.case.startswith("try")),
            )
        ]
        rest = [
            form.format(value) if value is not None else ""
            for value, form in (
                (r.idle, "{:.1%}"),
                (r.mfu, "{:.1%}"),
                (r.memory_gb, "{:.1f}"),
                (r.start_s, "{:.0f}"),
            )
        ]
        print(f"| {r.case} | {r.clips_per_s:.0f} | {' | '.join([*ratios, *rest])} |")


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _parse(cases: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides the recipe")
    parser.add_argument("--store", type=Path, help="a store with frames")
    parser.add_argument("--videos", type=int, default=512, help="videos to copy the store to")
    parser.add_argument("--folder", help="where the copy and the run go; default: a temporary one")
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, metavar="CASE")
    parser.add_argument("--limit", type=int, default=120, help="seconds for a case")
    parser.add_argument("--budget", type=int, default=3600, help="seconds for all cases")
    parser.add_argument("--json", type=Path, help="file that gets a line for each case")
    parser.add_argument("--profile", help="folder that gets a table of kernels for each case")
    parser.add_argument("--rows", type=int, default=40, help="lines of a table that are printed")
    parser.add_argument("--size", default="base")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--zoom", help="of the recipe, such as [2,4]")
    parser.add_argument("--batch", type=int, default=128, help="clips in a step")
    parser.add_argument("--workers", type=int, default=16, help="of `mme pretrain`")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the timed ones")
    return parser.parse_args()


if __name__ == "__main__":
    main()
