"""`mme pretrain`: masked motion encoding on the targets of a store.

    mme pretrain --config pretrain/demo.yaml store=out/train val_store=out/val out=runs/pretrain
    torchrun --nproc-per-node=8 -m mme_core pretrain --config pretrain/k400.yaml store=… out=…

Later --config files and key=value words win. OUT then holds config.yaml (resolved), metrics.jsonl
(a row a logged step), checkpoints/ and pictures/. The same command goes on where a run stopped;
SIGTERM and SIGUSR1 save and stop with exit status 75.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mme_core.clips.contents import content_sizes
from mme_core.clips.dataset import collate
from mme_core.errors import MMEError
from mme_core.store import TargetStore
from train.data.loader import make_loader
from train.data.sampler import ClipSampler
from train.data.staging import open_staged
from train.engine import checkpoint, folder
from train.engine.distributed import (
    STOPPED,
    Ranks,
    StopRequest,
    autocast_dtype,
    connect,
    disconnect,
)
from train.engine.optim import guarded_step, make_optimizer, make_schedule, scaled_lr
from train.engine.runlog import Meter, step_line
from train.engine.transfer import on_device
from train.objective.reconstruction import Objective, build_model
from train.recipes import loading
from train.recipes.pretraining import PretrainConfig
from train.scoring.heldout import HeldOut, clip_dataset


def main(argv: list[str]) -> int:
    config = loading.load(PretrainConfig, argv, "mme pretrain", __doc__)
    ranks = connect(config.device)
    try:
        return Pretraining(config, ranks).run()
    finally:
        disconnect()


@dataclass(frozen=True)
class StepNumbers:
    """What one step produced, still on its way from the device."""

    step: int  # steps done, this one included
    lr: float
    figures: dict[str, float]  # of the meter, where the step is logged
    videos: list[Tensor]  # rows of the store's table, of this process
    values: Tensor  # loss, contents' losses, stop asked (means over processes), norm, own loss
    ready: torch.cuda.Event | None

    def read(self) -> list[float]:
        if self.ready:
            self.ready.synchronize()
        return self.values.tolist()


class Pretraining:
    """One run: what it is made of, its loop, its checkpoints."""

    def __init__(self, config: PretrainConfig, ranks: Ranks) -> None:
        folder.check_folder(config)
        self.config, self.ranks, self.out = config, ranks, Path(config.out)
        data, optim = config.data, config.optim

        # What is learnt, from what.
        self.store = (
            open_staged(config.store, data.stage, data.stage_gb)
            if data.stage
            else TargetStore(config.store)
        )
        folder.check_finished(self.store)
        folder.check_spec(self.store, config)
        clips = clip_dataset(self.store, config, training=True)
        dtype = autocast_dtype(config.precision, ranks.device)
        self.objective = Objective.of(config, self.store.spec, ranks.device, dtype)
        self.contents = list(self.objective.weights)
        sizes = content_sizes(self.contents, self.store.spec, self.objective.settings)
        self.sampler = ClipSampler(
            len(clips),
            folder.videos_per_batch(data),
            rank=ranks.rank,
            world=ranks.world,
            accumulate=optim.accumulate,
            seed=config.seed,
            shards=clips.shards if data.shard_shuffle else None,
        )
        self.loader = make_loader(clips, self.sampler, collate, data.workers)
        self.held_out = None
        if config.val_store:
            self.held_out = HeldOut(config, self.store, self.objective, sizes, ranks)

        # The model: equal in every process at first; what each draws afterwards is its own.
        torch.manual_seed(config.seed)
        self.model = build_model(config, sizes).to(ranks.device)
        if config.init:
            weights = checkpoint.read_model(Path(config.init))
            checkpoint.load_weights(self.model, weights, config.init)
        torch.manual_seed(config.seed + ranks.rank)

        # The optimiser: its rate follows the effective batch.
        self.clips_per_step = data.batch_size * ranks.world * optim.accumulate
        self.steps_per_epoch = len(self.sampler) // optim.accumulate
        self.steps = optim.steps or optim.epochs * self.steps_per_epoch
        self.lr = scaled_lr(optim.lr, self.clips_per_step)
        self.optimizer = make_optimizer(self.model, optim, self.lr)
        warmup = min(round(optim.warmup_epochs * self.steps_per_epoch), self.steps // 2)
        min_lr = scaled_lr(optim.min_lr, self.clips_per_step)
        self.schedule = make_schedule(self.optimizer, self.steps, warmup, min_lr)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=dtype == torch.float16)

        self.done, self.skipped = 0, 0  # steps

    def run(self) -> int:
        """Trains to the end, or to a signal; returns the exit status."""
        warnings: list[str] = []
        state = checkpoint.load_last(self.out, warnings.append)
        if state is not None:
            self._restore(state)
        self.log = folder.begin(self.config, self.ranks, self.done, warnings)
        self._introduce()
        stop = StopRequest()
        try:
            stopped = self._train(stop, state)
        finally:
            stop.close()
            self.log.close()
        return STOPPED if stopped else 0

    def _train(self, stop: StopRequest, state: dict[str, Any] | None) -> bool:
        """The loop; True where a signal ended it."""
        config = self.config
        if self.done >= self.steps:
            self.log.say(f"{self.out} is at its last step already")
            return False
        if config.compile:
            self.model.compile()  # in place, before DDP: the state dict's keys stay as they are
        self.parallel = self.ranks.wrap(self.model)
        batches = on_device(iter(self.loader), self.ranks.device)
        if state is not None and self.ranks.rank < len(state["rng"]):
            checkpoint.set_rng_state(state["rng"][self.ranks.rank])
        self.meter = Meter(self.clips_per_step, self.steps - self.done)
        evaluate_every = config.eval.every * self.steps_per_epoch
        pending: StepNumbers | None = None
        while self.done < self.steps:
            self.schedule.step_update(self.done)
            numbers = self._step(batches, stop)
            self.done += 1
            # The step before is read while the device works on this one: nobody waits.
            asked = self._settle(pending)
            last = self.done == self.steps
            evaluates = self.held_out and (
                last or (evaluate_every and self.done % evaluate_every == 0)
            )
            saves = last or self.done % config.checkpoint.every == 0
            if asked or evaluates or saves:
                asked = self._settle(numbers) or asked
                numbers = None
            if evaluates:
                self._evaluate()
            if saves or asked:
                self._save()
            if asked and not last:
                self.log.say(f"stopped after step {self.done}; the same command goes on from here")
                return True
            pending = numbers
        self.log.say(f"done: {self.out}")
        return False

    def _step(self, batches: Iterator[dict[str, Tensor]], stop: StopRequest) -> StepNumbers:
        """One optimiser step over `accumulate` micro-batches."""
        optim, device = self.config.optim, self.ranks.device
        losses, videos = torch.zeros(1 + len(self.contents), device=device), []
        for micro in range(optim.accumulate):
            began = time.perf_counter()
            batch = next(batches)
            self.meter.waited += time.perf_counter() - began
            videos.append(batch["video"])
            question = self.objective.ask(batch)
            with self._exchange(last=micro == optim.accumulate - 1):
                predictions = self.objective.predict(self.parallel, question)
                loss, terms = self.objective.loss(predictions, question)
                self.scaler.scale(loss / optim.accumulate).backward()
            losses += torch.stack([loss, *terms.values()]).detach() / optim.accumulate
        own = losses[:1].clone()
        asked = torch.tensor([float(bool(stop))], device=device)
        shared = self.ranks.sum(torch.cat([losses, asked])) / self.ranks.world
        parameters = list(self.model.parameters())
        norm = guarded_step(self.optimizer, self.scaler, parameters, shared[0], optim.clip)
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.steps += 1
        values = torch.cat([shared, norm[None], own]).to("cpu", non_blocking=True)
        ready = None
        if device.type == "cuda":
            ready = torch.cuda.Event()
            ready.record()
        step, lr = self.done + 1, self.optimizer.param_groups[0]["lr"]
        logged = step % self.config.log.every == 0 or step == self.steps
        figures = self.meter.read(device) if logged else {}
        return StepNumbers(step, lr, figures, videos, values, ready)

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager:
        """Only the last micro-batch of a step sends gradients to the other processes."""
        if last or self.ranks.world == 1:
            return contextlib.nullcontext()
        return self.parallel.no_sync()

    def _settle(self, numbers: StepNumbers | None) -> bool:
        """Logs a step, or that it was skipped; True where some process was asked to stop."""
        if numbers is None:
            return False
        loss, *terms, asked, norm, own = numbers.read()
        gradient_counts = not self.scaler.is_enabled()  # with fp16 it overflows now and then
        if not math.isfinite(loss) or (gradient_counts and not math.isfinite(norm)):
            self._note_skipped(numbers, guilty=not math.isfinite(own) or math.isfinite(loss))
        elif numbers.figures:
            row = {
                "step": numbers.step,
                "epoch": numbers.step / self.steps_per_epoch,
                "loss": loss,
                **dict(zip(self.contents, terms)),
                "lr": numbers.lr,
                "grad_norm": norm,
                "skipped": self.skipped,
                **numbers.figures,
            }
            self.log.row(row)
            self.log.say(step_line(row, self.steps, self.contents), f"loss {row['loss']:.4f}")
        return asked > 0

    def _note_skipped(self, numbers: StepNumbers, guilty: bool) -> None:
        """Every process comes here at the same step. Raises MMEError when the budget is spent."""
        self.skipped += 1
        mine = torch.cat(numbers.videos).tolist() if guilty else []
        ids = [self.store.videos[video]["id"] for part in self.ranks.gather(mine) for video in part]
        self.log.row({"step": numbers.step, "event": "skipped", "videos": ids})
        names = f"{', '.join(ids[:8])}{f' and {len(ids) - 8} more' if len(ids) > 8 else ''}"
        text = f"step {numbers.step} skipped: the loss or gradient is not finite; videos: {names}"
        if self.skipped > self.config.nonfinite_budget:
            raise MMEError(
                f"{text}; {self.skipped} steps were skipped, more than "
                f"nonfinite_budget={self.config.nonfinite_budget}: lower optim.lr, set optim.clip, "
                "or look at these videos"
            )
        self.log.warn(text)

    def _evaluate(self) -> None:
        row = self.held_out(self.model, self.done, self.log)
        self.log.row({"step": self.done, "epoch": self.done / self.steps_per_epoch, **row})
        parts = [
            f"{name} {row[f'val_{name}']:.4f}, best constant {row[f'constant_{name}']:.4f}"
            for name in self.contents
        ]
        if "knn" in row:
            parts.append(f"kNN accuracy {row['knn']:.1%}")
        self.log.say(f"held out after step {self.done}: {'; '.join(parts)}", "held out")

    def _introduce(self) -> None:
        data, optim = self.config.data, self.config.optim
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        say = self.log.say
        say(
            f"{self.store.url}: {len(self.store.videos)} videos; model {self.config.model.size}, "
            f"{parameters:.1f} M parameters, on {self.ranks.world} × {self.ranks.device.type}, "
            f"{str(self.objective.dtype).removeprefix('torch.')}"
        )
        say(
            f"effective batch {self.clips_per_step} = data.batch_size {data.batch_size} × "
            f"processes {self.ranks.world} × optim.accumulate {optim.accumulate}; learning rate "
            f"{self.lr:.3g} = optim.lr {optim.lr:.3g} × {self.clips_per_step} / 256"
        )
        say(f"{self.steps} steps, {self.steps_per_epoch} an epoch; output in {self.out}")
        if self.done:
            say(f"goes on after step {self.done}")

    def _save(self) -> None:
        rng = self.ranks.gather(checkpoint.rng_state())
        if not self.ranks.main:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sampler": self.sampler.state_dict(self.done * self.config.optim.accumulate),
            "rng": rng,
            "step": self.done,
            "skipped": self.skipped,
            "config": loading.to_dict(self.config),
            "spec": self.store.spec.to_dict(),
            "spec_hash": self.store.spec.hash,
        }
        checkpoint.save(self.out, self.done, state, self.config.checkpoint.keep)

    def _restore(self, state: dict[str, Any]) -> None:
        """All of a checkpoint but the random generators, which starting the loader still uses."""
        source = f"the checkpoint in {self.out}"
        if state["spec_hash"] != self.store.spec.hash:
            raise MMEError(
                f"{source} was trained on a store of another specification than {self.store.url} "
                f"({'; '.join(folder.spec_differences(state['spec'], self.store.spec))})"
            )
        checkpoint.load_weights(self.model, state["model"], source)
        # Rates and decay are the recipe's, moments and step counts the checkpoint's.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(state["sampler"])
        self.done, self.skipped = state["step"], state["skipped"]
