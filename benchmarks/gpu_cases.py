"""The cases of `benchmarks/gpu_train.py`, each measured by a method of `Bench`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import torch
from bigger_store import multiply
from gpu_parts import Result, follow, noise_batch, waits_of
from gpu_variants import VARIANTS, Variant, compile_step, only_attention
from plain import PlainModel, plain_loss
from torch import Tensor
from torch.profiler import profile

from mme_core.clips.views import to_model_input
from mme_core.encoder import VideoEncoder, random_encoder
from mme_core.flops import pretraining_flops
from mme_core.spec import TargetSpec
from train.data.sources import open_source
from train.engine.device import on_device, to_device
from train.engine.distributed import Ranks, connect
from train.engine.meter import Meter, Moment, peak_flops
from train.engine.optim import guarded_step, make_optimizer
from train.engine.profiling import kernel_table
from train.objective.reconstruction import Objective, PretrainStep, build_model
from train.pretrain import Pretraining
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig
from train.recipes.scoring import FeaturesConfig
from train.scoring.evaluation import view_plan
from train.scoring.features import stream_features

Batch = Mapping[str, Tensor]
PLAIN_BATCH = 96  # attention matrices of more clips do not fit 80 GB
STREAMED = ["data.resident=false"]  # later words of a case override it
FED = {  # words of the recipe
    "store-16": ["data.workers=16"],
    "store-8": ["data.workers=8"],
    "store-4": ["data.workers=4"],
    "store-16-no-zoom": ["data.workers=16", "data.zoom=[]"],
    "store-16-two-crops": ["data.workers=16", "data.crops=2"],
    "store-8-two-crops": ["data.workers=8", "data.crops=2"],
    "resident": ["data.workers=2", "data.resident=true"],
}
# model.residual of `mme pretrain`, where the recipe's own is not used
PRETRAIN = {
    "pretrain": "",
    "pretrain-bf16": "bf16",
    "pretrain-fp32": "fp32",
    "pretrain-resident": "",
}
CASES = ("plain", *VARIANTS, "zoom", *FED, *PRETRAIN, "forward", "features")


class Bench:
    """What the cases share: the recipe, the batches that stay on the device, the store."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.folder)
        self.ranks: Ranks = connect("auto")
        self.device = self.ranks.device
        self.gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.gpu else torch.float32
        self.store: Path | None = None
        self.runs = 0
        self.fed_step: PretrainStep | None = None
        if args.store:
            self.store = self.folder / "store"
            videos = len(multiply(args.store, self.store, args.videos).videos)
            print(f"{self.store}: {videos} videos", flush=True)

    def words(self, *words: str) -> list[str]:
        args = self.args
        sized = [f"model.size={args.size}", f"model.image_size={args.image_size}"]
        sized += [f"model.frames={args.frames}", f"data.batch_size={args.batch}"]
        sized += [f"data.zoom={args.zoom}"] if args.zoom else []
        self.runs += 1
        out = f"out={self.folder / f'run-{self.runs}'}"
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
        compile_step(step, variant)
        return step

    def synthetic(self, case: str) -> Result:
        variant = VARIANTS[case]
        step = self.step_of(variant)
        batch = noise_batch(self.args, variant.batch or self.args.batch, self.device)
        with only_attention(variant.attention):
            return self.measure(case, step, repeat(batch))

    def fed(self, case: str) -> Result:
        self.need_store()
        task = Pretraining(self.config(*STREAMED, *FED[case]), self.ranks).task
        with contextlib.closing(task.batches):
            batches = on_device(task.batches, self.device)
            prepared = map(task.prepare, batches) if task.prepare else batches
            return self.measure(case, self.recipes_step(), prepared)

    def zoom(self, case: str) -> Result:
        self.need_store()
        config = self.config(*STREAMED, "data.workers=4")
        batches = Pretraining(config, self.ranks).task.batches
        with contextlib.closing(batches):
            batch = to_device(next(batches), self.device)
        return self.measure(case, self.recipes_step(), repeat(batch))

    def recipes_step(self) -> PretrainStep:
        """The step of the recipe, the same for all cases that are fed: compiled once for a form of
        the batches."""
        if self.fed_step is None:
            recipes = Variant(self.config().model.residual, "whole" if self.gpu else "no")
            self.fed_step = self.step_of(recipes)
        return self.fed_step

    def forget(self, case: str) -> None:
        """Gives memory and compiled code back, where the next case cannot use them."""
        if case not in (*FED, "zoom"):
            self.fed_step = None
            torch.compiler.reset()
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()

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
        return Result(case, clips / seconds, 1000 * seconds, loss=float(loss.detach()))

    def pretrain(self, case: str) -> Result:
        """The command in a process of its own; the median of its rows but the first two."""
        self.need_store()
        steps, every = (100, 5) if self.gpu else (6, 1)
        words = [f"optim.steps={steps}", f"log.every={every}", "checkpoint.every=100000"]
        words += [f"profile={3 if self.gpu else 1}", f"data.workers={self.args.workers}"]
        words += [f"model.residual={PRETRAIN[case]}"] if PRETRAIN[case] and self.gpu else []
        if case != "pretrain-resident":
            words += STREAMED
        command = [sys.executable, "-m", "mme_core", "pretrain", *self.words(*words)]
        start = follow(command)
        out = self.folder / f"run-{self.runs}"
        lines = (out / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "clips_per_s" in row][2:]
        # The profiler slows down the steps that it watches, which come first.
        rows = rows[len(rows) // 3 :]
        kernels = (out / "profile" / "kernels.txt").read_text()
        if self.args.profile:
            Path(self.args.profile, f"kernels-{case}.txt").write_text(kernels)
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
            start_s=start,
            loss=rows[-1]["loss"],
        )

    def forward(self, case: str) -> Result:
        """The encoder's pooled features of clips that stay on the device."""
        encoder = self.encoder()
        shape = (self.views, self.args.frames, self.args.image_size, self.args.image_size, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8).to(self.device)

        def take() -> None:
            with torch.autocast(self.device.type, self.dtype, enabled=self.gpu):
                tokens = encoder.tokens(to_model_input(frames))
            encoder.pool(tokens.float())

        with torch.inference_mode():
            for _ in range(self.args.warmup):
                take()
            start = Moment(self.device)
            for _ in range(4 * self.args.steps):
                take()
            end = Moment(self.device)
        end.wait()
        seconds = end.since(start) / (4 * self.args.steps)
        return Result(case, self.views / seconds, 1000 * seconds)

    def features(self, case: str) -> Result:
        """The same from the store, as `mme features` does it, one view of each video."""
        sized = [f"model.size={self.args.size}", f"model.image_size={self.args.image_size}"]
        words = [*sized, f"model.frames={self.args.frames}", f"view.batch={self.views}"]
        words += ["init=none", "out=features.npz", f"store={self.need_store()}"]
        config = load(FeaturesConfig, words, "", "")
        source = open_source(config.data, config.store, root=None, split=None)
        plan = view_plan(source, config.data, config.view, config.model, recipe={})
        rows = stream_features(
            self.encoder(),
            source,
            plan,
            self.ranks,
            tokens=False,
            batch=self.views,
            workers=self.args.workers,
            dtype=self.dtype,
        )
        first = [next(rows) for _ in range(self.views * min(self.args.warmup, 2))]
        began = time.perf_counter()
        count = sum(1 for _ in rows)
        seconds = (time.perf_counter() - began) / max(count, 1)
        assert all(not isinstance(found, str) for _, found in first)
        return Result(case, 1 / seconds, 1000 * self.views * seconds)

    @property
    def views(self) -> int:
        return min(self.args.batch, 32)

    def encoder(self) -> VideoEncoder:
        args = self.args
        sizes = {"frames": args.frames, "image_size": args.image_size, "patch": 16, "depth": None}
        return random_encoder(0, args.size, **sizes).to(self.device)

    def need_store(self) -> Path:
        if self.store is None:
            raise RuntimeError("needs --store")
        return self.store

    def run(self, case: str) -> Result:
        if case in PRETRAIN:
            return self.pretrain(case)
        if case in ("plain", "zoom", "forward", "features"):
            return getattr(self, case)(case)
        return self.fed(case) if case in FED else self.synthetic(case)
