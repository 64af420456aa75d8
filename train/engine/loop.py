"""The training loop of `mme pretrain` and `mme finetune`.

A command describes what it trains as a `Task`; the loop does the rest: schedule, gradient
accumulation, several processes, skipped steps, log, evaluations, checkpoints, signals. `Loop._step`
is one optimiser step from top to bottom; `Loop.train` is what happens between steps.

The host never waits for the device: it reads the numbers of a step while the device already works
on the next one. Only an evaluation or a checkpoint needs them at once.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mme_core.cores import bf16_instructions
from mme_core.errors import MMEError, listed
from mme_core.transformer import unfuse_attention
from mme_core.weights.run_folder import has_number
from train.engine import checkpoint, folder
from train.engine.device import compiles, fill, on_device
from train.engine.distributed import Ranks
from train.engine.meter import Interval, Meter, Moment
from train.engine.optim import guarded_step, make_optimizer, make_schedule, scaled_lr
from train.engine.profiling import Profile
from train.engine.rng import rng_state, seed_all, set_rng_state
from train.engine.runlog import RunLog, step_line
from train.engine.signals import StopRequest
from train.engine.task import Batch, Task
from train.recipes.classification import FinetuneConfig
from train.recipes.pretraining import PretrainConfig


@dataclass(frozen=True)
class StepNumbers:
    """What one step produced, still on its way from the device."""

    step: int  # steps done, this one included
    lr: float
    terms: list[str]  # names of the loss's parts
    interval: Interval | None  # of the meter, where the step is logged
    figures: dict[str, float]  # further numbers of the row
    videos: list[Tensor]  # indices of this process' videos
    unread: dict[int, str]  # its videos that could not be read, and why
    values: Tensor  # means over processes (loss, its parts, stop asked, unread), norm, own loss
    done: Moment  # when the device has done the step


class Loop:
    """One run: `with loop.begin() as log: loop.train()`."""

    def __init__(self, config: PretrainConfig | FinetuneConfig, ranks: Ranks, task: Task) -> None:
        optim = config.optim
        self.config, self.ranks, self.task, self.out = config, ranks, task, Path(config.out)
        self.clips_per_step = config.data.batch_size * ranks.world * optim.accumulate
        self.steps_per_epoch = len(task.sampler) // optim.accumulate
        self.steps = optim.steps or optim.epochs * self.steps_per_epoch
        self.lr = scaled_lr(optim.lr, task.lr_batch)
        self.optimizer = make_optimizer(task.model, optim, self.lr, task.groups)
        warmup = min(round(optim.warmup_epochs * self.steps_per_epoch), self.steps // 2)
        min_lr = scaled_lr(optim.min_lr, task.lr_batch)
        self.schedule = make_schedule(self.optimizer, self.steps, warmup, min_lr)
        fp16 = task.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=fp16)
        self.stop = StopRequest()
        self.done, self.skipped = 0, 0  # steps

    @contextlib.contextmanager
    def begin(self) -> Iterator[RunLog]:
        """Locks the run's folder, restores its newest checkpoint and opens its log."""
        warnings: list[str] = []
        with (
            folder.lock(self.out, self.ranks, warnings.append),
            self.stop,
            contextlib.closing(self.task.batches),  # ends the loader's processes
        ):
            state = checkpoint.load_last(self.out, warnings.append)
            if state is not None:
                self._restore(state)
            del state  # as large as the model and its optimiser: not to be kept while training
            folder.check_shared(self.out, self.ranks, self.done)
            self.log = folder.open_log(self.config, self.ranks, self.done, warnings)
            with contextlib.closing(self.log):
                yield self.log

    def train(self) -> bool:
        """Trains to the last step; True where a signal stopped it before, with a checkpoint."""
        config, task, say = self.config, self.task, self.log.say
        say(
            f"{self.steps} steps, {self.steps_per_epoch} an epoch; learning rate {self.lr:.3g} = "
            f"optim.lr {config.optim.lr:.3g} × {task.lr_batch} / 256; output in {self.out}"
        )
        if self.done:
            ended = f"{self.out} is at its last step already"
            say(ended if self.done >= self.steps else f"resumes after step {self.done}")
            if self._evaluates() and not self.has_row("val_"):  # a signal came before it
                self._evaluate()
        if self.done >= self.steps:
            return False
        device = self.ranks.device
        if device.type == "cpu" and task.dtype is torch.bfloat16:
            unfuse_attention(task.model)
            if bf16_instructions() == "":
                self.log.warn(
                    "precision=bf16: this CPU has no bf16 instructions; precision=fp32 trains "
                    "about ten times as fast"
                )
        if compiles(config.compile, device):
            # In place, before DDP: the state dict keeps its keys. All batches have one shape.
            task.step.compile(dynamic=False)
        self.step = self.ranks.wrap(task.step).train()
        batches = on_device(task.batches, device)
        left = self.steps - self.done
        flops = task.flops and task.flops * self.clips_per_step / self.ranks.world
        self.meter = Meter(device, self.clips_per_step, left, flops)
        with self._profile(left) as profile:
            return self._steps(batches, profile)

    def _profile(self, left: int) -> contextlib.AbstractContextManager[Profile | None]:
        if not (self.config.profile and self.ranks.main):
            return contextlib.nullcontext()
        return Profile(self.out, self.config.profile, left, self.ranks.device)

    def _steps(self, batches: Iterator[Batch], profile: Profile | None) -> bool:
        first = self.done + 1
        pending: StepNumbers | None = None
        while self.done < self.steps:
            numbers: StepNumbers | None = self._step(batches)
            self.done += 1
            traced = profile is not None and profile.step()
            stop = self._read(pending)
            last = self.done == self.steps
            evaluates = self._evaluates()
            saves = last or self.done % self.config.checkpoint.every == 0
            if stop or evaluates or saves:
                stop = self._read(numbers) or stop
                numbers = None
            if stop or saves:  # before the evaluation: who asks to stop may not wait for it
                self._save()
            if stop and (evaluates or not last):
                self.task.unread.check(self.done)
                self.log.say(f"stopped after step {self.done}; the same command resumes from here")
                return True
            if evaluates:
                self._evaluate()
                self.step.train()
            if evaluates or saves or traced or self.done == first:
                self.meter.restart()
            pending = numbers
        return False

    def _evaluates(self) -> bool:
        """Whether the task is evaluated after the step that was done last."""
        task, every = self.task, self.config.eval.every * self.steps_per_epoch
        due = every > 0 and self.done % every == 0
        return bool(task.evaluate) and (task.evaluate_last if self.done == self.steps else due)

    def _step(self, batches: Iterator[Batch]) -> StepNumbers:
        """One optimiser step over `accumulate` micro-batches."""
        config, task, ranks, device = self.config, self.task, self.ranks, self.ranks.device
        self.schedule.step_update(self.done)
        losses, videos = torch.zeros((), device=device), []
        terms: dict[str, Tensor] = {}
        for micro in range(config.optim.accumulate):
            with self.meter.loading():
                batch = next(batches)
            videos.append(batch["video"])
            if task.seed_draws:
                seed_all([config.seed, self.done, micro, ranks.rank])
            batch = task.prepare(batch) if task.prepare else batch
            with self._exchange(last=micro == config.optim.accumulate - 1):
                loss, terms = self.step(batch)
                self.scaler.scale(loss / config.optim.accumulate).backward()
            parts = torch.stack([loss, *terms.values()]).detach()
            losses = losses + parts / config.optim.accumulate
            self.meter.end_micro_batch()
        unread = task.unread.take()
        asked = fill([bool(self.stop), len(unread)], device)
        shared = ranks.sum(torch.cat([losses, asked])) / ranks.world
        parameters = list(task.model.parameters())
        norm = guarded_step(self.optimizer, self.scaler, parameters, shared[0], config.optim.clip)
        self.optimizer.zero_grad(set_to_none=True)
        if task.average:
            task.average.update(task.model, step=self.done)
        values = torch.cat([shared, norm[None], losses[:1]]).to("cpu", non_blocking=True)
        self.meter.end_step()
        step, lr = self.done + 1, max(group["lr"] for group in self.optimizer.param_groups)
        logged = step % config.log.every == 0 or step == self.steps
        ready = task.ready()
        figures: dict[str, float] = {} if ready is None else {"ready": ready}
        done = self.meter.interval.end
        interval = self.meter.take() if logged else None
        return StepNumbers(step, lr, list(terms), interval, figures, videos, unread, values, done)

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager:
        """Only the last micro-batch of a step sends gradients to the other processes."""
        if last or not isinstance(self.step, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.step.no_sync()

    def _read(self, numbers: StepNumbers | None) -> bool:
        """Logs a step, or that it was skipped; True where all processes are to stop."""
        if numbers is None:
            return False
        numbers.done.wait()
        loss, *terms, asked, failed, norm, own = numbers.values.tolist()
        unread = self.task.unread
        if failed:
            for i, text in unread.note(self.ranks.gather(numbers.unread)).items():
                self.log.warn(f"another video stands in for {self.task.video_ids[i]}: {text}")
        gradient_counts = not self.scaler.is_enabled()  # with fp16 it overflows now and then
        if not math.isfinite(loss) or (gradient_counts and not math.isfinite(norm)):
            self._note_skipped(numbers, guilty=not math.isfinite(own) or math.isfinite(loss))
        elif numbers.interval:
            row = {
                "step": numbers.step,
                "epoch": numbers.step / self.steps_per_epoch,
                "loss": loss,
                **dict(zip(numbers.terms, terms)),
                "lr": numbers.lr,
                "grad_norm": norm,
                "skipped": self.skipped,
                "bad": len(unread.known),
                **numbers.figures,
                **numbers.interval.figures(),
            }
            self.log.row(row, system=numbers.figures)
            self.log.say(step_line(row, self.steps, numbers.terms), f"loss {loss:.4f}")
        return asked > 0 or unread.spent

    def _note_skipped(self, numbers: StepNumbers, guilty: bool) -> None:
        """Names the videos of the guilty processes. All processes call it at the same step.

        Raises MMEError when more steps were skipped than `nonfinite_budget` allows.
        """
        self.skipped += 1
        mine = torch.cat(numbers.videos).unique().tolist() if guilty else []
        ids = [self.task.video_ids[i] for part in self.ranks.gather(mine) for i in part]
        self.log.row({"step": numbers.step, "event": "skipped", "videos": ids})
        why = "the loss or gradient is not finite"
        text = f"step {numbers.step} skipped: {why}; videos: {listed(ids)}"
        if self.skipped > self.config.nonfinite_budget:
            raise MMEError(
                f"{text}; {self.skipped} steps were skipped, more than "
                f"nonfinite_budget={self.config.nonfinite_budget}: lower optim.lr, set optim.clip, "
                "or look at these videos"
            )
        self.log.warn(text)

    def has_row(self, prefix: str) -> bool:
        """Whether the log has a number with this prefix of the step that was done last."""
        return self.ranks.gather(self.ranks.main and has_number(self.out, self.done, prefix))[0]

    def _evaluate(self) -> None:
        if self.task.evaluate:
            self.log_evaluation(*self.task.evaluate(self.done, self.log))

    def log_evaluation(self, row: Mapping[str, Any], text: str) -> None:
        row = {"step": self.done, "epoch": self.done / self.steps_per_epoch, **row}
        self.log.row(row, group="held-out")
        self.log.say(f"held out after step {self.done}: {text}", "held out")

    def _save(self) -> None:
        rng = self.ranks.gather(rng_state())
        if not self.ranks.main:
            return
        average = self.task.average
        state = {
            "model": self.task.model.state_dict(),
            "ema": average.module.state_dict() if average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sampler": self.task.sampler.state_dict(self.done * self.config.optim.accumulate),
            "rng": rng,
            "step": self.done,
            "steps": self.steps,
            "skipped": self.skipped,
            **self.task.state,
        }
        checkpoint.save(self.out, self.done, state, self.config.checkpoint.keep)

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Puts a checkpoint back. Raises MMEError where it is of another model or other data."""
        task, source = self.task, f"the checkpoint in {self.out}"
        task.check(state, source)
        checkpoint.load_weights(task.model, state["model"], source)
        if task.average:
            checkpoint.load_weights(task.average.module, state["ema"] or state["model"], source)
        # Rates and decay are the recipe's, moments and step counts the checkpoint's.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if state["scaler"]:  # empty where the run before needed no scaled loss: bf16, fp32
            self.scaler.load_state_dict(state["scaler"])
        task.sampler.load_state_dict(state["sampler"])
        # Checkpoints of older fine-tuning runs have neither skipped steps nor generators.
        self.done, self.skipped = state["step"], state.get("skipped", 0)
        generators = state.get("rng", [])
        if self.ranks.rank < len(generators):
            set_rng_state(generators[self.ranks.rank])
