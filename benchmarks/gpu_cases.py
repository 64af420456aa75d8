"""The cases of `benchmarks/gpu_train.py`, each measured by a method of `Bench`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import torch
from bigger_store import multiply
from gpu_command import PRETRAIN, pretrain
from gpu_encoder import features, forward
from gpu_parts import STREAMED, Result, noise_batch, waits_of
from gpu_variants import VARIANTS, Variant, compile_step, only_attention
from plain import PlainModel, plain_loss
from torch import Tensor
from torch.profiler import profile

from mme_core.clips.views import to_model_input
from mme_core.flops import pretraining_flops
from mme_core.spec import TargetSpec
from train.engine.device import on_device, to_device
from train.engine.distributed import Ranks, connect
from train.engine.meter import Meter, Moment, peak_flops
from train.engine.optim import guarded_step, make_optimizer
from train.engine.profiling import kernel_table
from train.objective.reconstruction import Objective, PretrainStep, build_model
from train.pretrain import Pretraining
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig

Batch = Mapping[str, Tensor]
PLAIN_BATCH = 96  # attention matrices of more clips do not fit 80 GB
FED = {  # words of the recipe
    "store-16": ["data.workers=16"],
    "store-8": ["data.workers=8"],
    "store-4": ["data.workers=4"],
    "store-16-no-zoom": ["data.workers=16", "data.zoom=[]"],
    "store-16-two-crops": ["data.workers=16", "data.crops=2"],
    "store-8-two-crops": ["data.workers=8", "data.crops=2"],
    "resident": ["data.workers=2", "data.resident=true"],
}
ENCODER = {"forward": forward, "features": features}
CASES = ("plain", *VARIANTS, "zoom", *FED, *PRETRAIN, *ENCODER)


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
            shutil.rmtree(self.store, ignore_errors=True)  # of an earlier run
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

    def need_store(self) -> Path:
        if self.store is None:
            raise RuntimeError("needs --store")
        return self.store

    def run(self, case: str) -> Result:
        if case in PRETRAIN:
            return pretrain(self, case)
        if case in ENCODER:
            return ENCODER[case](self, case)
        if case in ("plain", "zoom"):
            return getattr(self, case)(case)
        return self.fed(case) if case in FED else self.synthetic(case)
