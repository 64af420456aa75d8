"""Speed of pre-training on one GPU, as one table with ratios.

    python benchmarks/gpu_train.py --store STORE            # all cases; a small store is enough
    python benchmarks/gpu_train.py --cases eager whole      # batches that stay on the device
    python benchmarks/gpu_train.py --size tiny --image-size 64 --batch 2 --steps 2   # smoke test

The recipe is `pretrain/k400.yaml`: ViT-B, 16 × 224², 70 % masked, zoom, batch 128. The cases:

    plain           a plain loop (`benchmarks/plain.py`): boolean masks, fp16, ready targets
    eager … bf16    our step on one batch that stays on the device: not compiled; only the model
                    compiled; the whole step compiled; the same with bf16 tokens between blocks
    whole-256 …     the same with 256 clips
    store-N …       the compiled step fed from the store by N workers; with zoom unless the name
                    says otherwise
    pretrain        `mme pretrain` itself, by its own log
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
import gc
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bigger_store import multiply
from plain import PlainModel, plain_loss
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import profile

from mme_core.clips.views import to_model_input
from mme_core.flops import pretraining_flops
from mme_core.masking import make_mask
from mme_core.spec import TargetSpec
from mme_core.targets import MOMENTS
from train.engine.device import on_device
from train.engine.distributed import Ranks, connect
from train.engine.meter import Meter, Moment, peak_flops
from train.engine.optim import guarded_step, make_optimizer
from train.engine.profiling import kernel_table
from train.objective.reconstruction import Objective, PretrainStep, build_model
from train.pretrain import Pretraining
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig

Batch = Mapping[str, Tensor]
TRIED_DEPTH = 4
PLAIN_BATCH = 96  # attention matrices of more clips do not fit 80 GB


@dataclass(frozen=True)
class Variant:
    """How a step on one batch is run.

    compile    "no", "model", "blocks" (one by one) or "whole"
    attention  the only back-end allowed: "cudnn", "flash" or "efficient"; "": torch's choice
    options    of torch.compile
    mode       of torch.compile; "" is its default
    """

    residual: str = "fp32"
    compile: str = "whole"
    batch: int | None = None
    depth: int | None = None
    attention: str = ""
    qkv: str = "unbind"  # timm's; or "chunk" or "separate", see _attend
    options: tuple[tuple[str, Any], ...] = ()
    mode: str = ""


TRIED = Variant("bf16", depth=TRIED_DEPTH)
VARIANTS = {
    "eager": Variant(compile="no"),
    "model": Variant(compile="model"),
    "whole": Variant(),
    "bf16": Variant("bf16"),
    "whole-256": Variant(batch=256),
    "bf16-256": Variant("bf16", batch=256),
    "try-base": TRIED,
    "try-cudnn": replace(TRIED, attention="cudnn"),
    "try-flash": replace(TRIED, attention="flash"),
    "try-separate": replace(TRIED, qkv="separate"),
    "try-chunk": replace(TRIED, qkv="chunk"),
    "try-blocks": replace(TRIED, compile="blocks"),
    "try-no-mix": replace(TRIED, options=(("triton.mix_order_reduction", False),)),
    "try-descent": replace(TRIED, options=(("coordinate_descent_tuning", True),)),
    "try-pointwise": replace(TRIED, options=(("max_autotune_pointwise", True),)),
    "try-graphs": replace(TRIED, mode="reduce-overhead"),
    "try-graphs-16": replace(TRIED, mode="reduce-overhead", batch=16),
    "try-base-16": replace(TRIED, batch=16),
    "try-autotune": replace(TRIED, options=(("max_autotune", True),)),
}
FED = {  # words of the recipe
    "store-16": ["data.workers=16"],
    "store-8": ["data.workers=8"],
    "store-4": ["data.workers=4"],
    "store-16-no-zoom": ["data.workers=16", "data.zoom=[]"],
    "store-16-two-crops": ["data.workers=16", "data.crops=2"],
    "store-8-two-crops": ["data.workers=8", "data.crops=2"],
}
CASES = ("plain", *VARIANTS, *FED, "pretrain")


@dataclass(frozen=True)
class Result:
    """One row of the table; None: not measured in this case."""

    case: str
    clips_per_s: float
    step_ms: float
    idle: float | None = None  # share of time
    host_ms: float | None = None  # for a step
    waited: float | None = None  # share of time
    mfu: float | None = None
    memory_gb: float | None = None
    start_s: float | None = None  # to the end of the first step
    loss: float | None = None
    waits: tuple[str, ...] = ()  # lines at which the host waits for the device


class Bench:
    """What the cases share: the recipe, the batches that stay on the device, the store."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.folder)
        self.ranks: Ranks = connect("auto")
        self.device = self.ranks.device
        self.gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.gpu else torch.float32
        self.store: Path | None = None
        if args.store:
            self.store = self.folder / "store"
            videos = len(multiply(args.store, self.store, args.videos).videos)
            print(f"{self.store}: {videos} videos", flush=True)

    def words(self, *words: str) -> list[str]:
        args = self.args
        sized = [f"model.size={args.size}", f"model.image_size={args.image_size}"]
        sized += [f"model.frames={args.frames}", f"data.batch_size={args.batch}"]
        sized += [f"data.zoom={args.zoom}"] if args.zoom else []
        out = f"out={self.folder / 'run'}"
        return [
            "--config",
            "pretrain/k400.yaml",
            f"store={self.store}",
            out,
            *sized,
            *args.words,
            *words,
        ]

    def config(self, *words: str) -> PretrainConfig:
        return load(PretrainConfig, self.words(*words), "", "")

    def step_of(self, variant: Variant) -> PretrainStep:
        depth = f"model.depth={variant.depth or 'null'}"
        config = self.config(depth)
        config.model.residual = variant.residual if self.gpu else "fp32"
        objective = Objective.of(config, TargetSpec(), self.device, self.dtype)
        torch.manual_seed(0)
        step = PretrainStep(build_model(config, objective.sizes).to(self.device), objective)
        options: dict[str, Any] = {}
        if variant.options:
            options["options"] = dict(variant.options)
        if variant.mode:
            options["mode"] = variant.mode
        if variant.qkv != "unbind":
            _change_attention(step, variant.qkv == "separate")
        if variant.compile == "whole":
            step.compile(**options)
        elif variant.compile == "model":
            step.model.predict = torch.compile(step.model.predict, **options)
        elif variant.compile == "blocks":
            for blocks in (step.model.encoder.blocks, step.model.decoders["joint"].blocks):
                for block in blocks:
                    block.compile(**options)
        return step

    def synthetic(self, case: str) -> Result:
        variant = VARIANTS[case]
        step = self.step_of(variant)
        batch = noise_batch(self.args, variant.batch or self.args.batch, self.device)
        with only_attention(variant.attention):
            return self.measure(case, step, repeat(batch))

    def fed(self, case: str) -> Result:
        if self.store is None:
            raise RuntimeError("needs --store")
        config = self.config(*FED[case], "seed=1")
        batches = Pretraining(config, self.ranks).task.batches
        step = self.step_of(Variant("fp32"))
        with contextlib.closing(batches):
            return self.measure(case, step, on_device(batches, self.device))

    def measure(self, case: str, step: PretrainStep, batches: Iterator[Batch]) -> Result:
        """Steps as the loop takes them: the host reads a step when the device does the next."""
        args = self.args
        optimizer = make_optimizer(step.model, self.config().optim, 1e-4)
        scaler = torch.amp.GradScaler(enabled=False)
        parameters = list(step.model.parameters())
        host: list[float] = []
        values: list[Tensor] = []

        def take() -> int:
            with meter.loading():
                batch = next(batches)
            began = time.perf_counter()
            loss, _ = step(batch)
            loss.backward()
            guarded_step(optimizer, scaler, parameters, loss.detach(), None)
            optimizer.zero_grad(set_to_none=True)
            values.append(loss.detach())
            meter.end_step()
            host.append(time.perf_counter() - began)
            return len(batch["mask"])

        began = time.perf_counter()
        meter = Meter(self.device, 1, args.steps)
        clips = take()
        meter.interval.end.wait()
        start = time.perf_counter() - began
        before: Moment | None = None
        for number in range(args.warmup + args.steps):
            if number == args.warmup:
                if self.gpu:
                    torch.cuda.reset_peak_memory_stats()
                host.clear()
                meter.restart()
            take()
            if before:
                before.wait()
            before = meter.interval.end
        interval = meter.take()
        interval.end.wait()
        figures = interval.figures()
        rate = figures["clips_per_s"] * clips
        peak = peak_flops(self.device)
        flops = 3 * pretraining_flops(step.model, step.objective.hidden)
        loss = float(values[args.warmup + args.steps])
        if args.profile and self.gpu:
            self.write_kernels(case, take)
        return Result(
            case,
            rate,
            1000 * clips / rate,
            idle=figures.get("device_idle", figures["data_wait"]),
            host_ms=1000 * statistics.median(host),
            waited=figures["data_wait"],
            mfu=rate * flops / peak if peak else None,
            memory_gb=figures["memory"],
            start_s=start,
            loss=loss,
            waits=waits_of(take) if self.gpu else (),
        )

    def write_kernels(self, case: str, take: Callable[[], int]) -> None:
        with profile() as profiler:
            for _ in range(3):
                take()
            torch.cuda.synchronize()
        text = kernel_table(profiler.events(), 3, self.device)
        Path(self.args.profile, f"kernels-{case}.txt").write_text(text)
        print("\n".join(text.splitlines()[: self.args.rows]), flush=True)

    def plain(self, case: str) -> Result:
        """Our model as one writes it without care, with ready targets and fp16."""
        step = self.step_of(Variant(compile="no"))
        clips = min(self.args.batch, PLAIN_BATCH)
        batch = noise_batch(self.args, clips, self.device)
        question = step.objective.ask(batch)
        model = PlainModel(step.model).to(self.device)
        clip, mask, targets = to_model_input(batch["frames"]), batch["mask"], question.targets
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        scaler = torch.amp.GradScaler(enabled=self.gpu)
        del step

        def take() -> Tensor:
            with torch.autocast(self.device.type, torch.float16, enabled=self.gpu):
                loss = plain_loss(model(clip, mask), targets, mask)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            return loss

        for _ in range(self.args.warmup):
            take()
        start = Moment(self.device)
        for _ in range(self.args.steps):
            loss = take()
        end = Moment(self.device)
        end.wait()
        seconds = end.since(start) / self.args.steps
        return Result(case, clips / seconds, 1000 * seconds, loss=float(loss))

    def pretrain(self, case: str) -> Result:
        """The command in a process of its own; the median of its rows but the first two."""
        if self.store is None:
            raise RuntimeError("needs --store")
        steps, every = (60, 5) if self.gpu else (6, 1)
        words = [f"optim.steps={steps}", f"log.every={every}", "checkpoint.every=100000"]
        words += [f"profile={3 if self.gpu else 1}", f"data.workers={self.args.workers}"]
        command = [sys.executable, "-m", "mme_core", "pretrain", *self.words(*words)]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                said, _ = process.communicate()
            finally:
                process.terminate()
        if process.returncode:
            raise RuntimeError(f"mme pretrain ended with {process.returncode}: {said[-500:]}")
        print(said, flush=True)
        out = self.folder / "run"
        lines = (out / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "clips_per_s" in row][2:]
        # The profiler slows down the steps that it watches, which come first.
        rows = rows[len(rows) // 3 :]
        kernels = (out / "profile" / "kernels.txt").read_text()
        if self.args.profile:
            Path(self.args.profile, "kernels-pretrain.txt").write_text(kernels)
        print("\n".join(kernels.splitlines()[: self.args.rows]), flush=True)

        def median(name: str) -> float | None:
            values = [row[name] for row in rows if name in row]
            return statistics.median(values) if values else None

        rate = median("clips_per_s") or 0.0
        return Result(
            case,
            rate,
            1000 * self.args.batch / max(rate, 1e-9),
            idle=median("device_idle") if self.gpu else median("data_wait"),
            waited=median("data_wait"),
            mfu=median("mfu"),
            memory_gb=median("memory"),
            start_s=time.perf_counter() - began,
            loss=rows[-1]["loss"],
        )

    def run(self, case: str) -> Result:
        if case == "plain":
            return self.plain(case)
        if case == "pretrain":
            return self.pretrain(case)
        return self.fed(case) if case in FED else self.synthetic(case)


def main() -> None:
    args = _parse()
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
                torch.compiler.reset()
                gc.collect()
                if bench.gpu:
                    torch.cuda.empty_cache()
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


def noise_batch(args: argparse.Namespace, batch: int, device: torch.device) -> dict[str, Tensor]:
    """Noise in the form that the loader delivers, on the device."""
    spec = TargetSpec()
    side, n = args.image_size // spec.patch, args.frames // 2
    tokens = (batch, n, side, side)
    track = (*tokens, spec.points, spec.length)
    rng = np.random.default_rng(0)
    masks = [make_mask("tube", tokens[1:], 0.7, rng).ravel() for _ in range(batch)]
    pixels = (batch, args.frames, args.image_size, args.image_size, 3)
    made = {
        "frames": torch.randint(0, 256, pixels, dtype=torch.uint8),
        "position": torch.randint(-127, 128, (*track, 2), dtype=torch.int8),
        "shape": torch.randint(-127, 128, (*track, spec.hog_bins), dtype=torch.int8),
        "moments": torch.rand(*tokens, MOMENTS),
        "valid": torch.full(tokens, 2**spec.points - 1, dtype=torch.uint8),
        "flip": torch.rand(batch) < 0.5,
        "mask": torch.from_numpy(np.stack(masks)),
    }
    return {name: value.to(device) for name, value in made.items()}


def waits_of(take: Callable[[], int]) -> tuple[str, ...]:
    """Lines of Python at which a step waits for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        take()
        torch.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "synchronizing" in str(w.message)]
    return tuple(sorted({f"{Path(w.filename).name}:{w.lineno}" for w in found}))


@contextlib.contextmanager
def only_attention(name: str) -> Iterator[None]:
    """Allows one back-end of attention alone; "": all."""
    switches = {
        "cudnn": torch.backends.cuda.enable_cudnn_sdp,
        "flash": torch.backends.cuda.enable_flash_sdp,
        "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
    }
    for key, switch in switches.items():
        switch(not name or key == name)
    yield
    for switch in switches.values():
        switch(True)


def _change_attention(step: PretrainStep, separate: bool) -> None:
    """Encoder blocks compute q, k and v by a product each, so that no gradients are joined; or by
    one product whose columns are cut, so that they are joined without a change of layout."""

    def attend(self: Attention, x: Tensor, **_: Any) -> Tensor:
        if separate:
            weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
            parts = [F.linear(x, w, b) for w, b in zip(weights, biases)]
        else:
            parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    for block in step.model.encoder.blocks:
        assert isinstance(block, nn.Module)
        block.attn.forward = attend.__get__(block.attn)


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


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides the recipe")
    parser.add_argument("--store", type=Path, help="a store with frames")
    parser.add_argument("--videos", type=int, default=512, help="videos to copy the store to")
    parser.add_argument("--folder", help="where the copy and the run go; default: a temporary one")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE")
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
