"""`mme finetune`: a pre-trained encoder becomes a classifier, in VideoMAE's recipe.

    mme finetune --config finetune/demo.yaml init=runs/pretrain store=out/train val_store=out/val \\
        out=runs/finetune
    torchrun --nproc-per-node=8 -m mme_core finetune --config finetune/k400.yaml init=… …

OUT then holds config.yaml, metrics.jsonl, checkpoints, model.safetensors (the classifier, as
`mme evaluate`, `predict` and `export` take it) and the tables and pictures of the evaluation. The
same command goes on where a run stopped; SIGTERM and SIGUSR1 save and stop with exit status 75.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mme_core.errors import MMEError, VideoError
from mme_core.model import Classifier
from mme_core.weights.save import save_weights
from train.data.augment import seed_all
from train.data.labelled import TrainClips, ViewPlan, collate_train
from train.data.loader import make_loader
from train.data.sampler import ClipSampler
from train.data.sources import Sources, frame_stride, open_sources
from train.engine import checkpoint, folder
from train.engine.distributed import (
    STOPPED,
    Ranks,
    StopRequest,
    autocast_dtype,
    connect,
    disconnect,
)
from train.engine.layer_decay import layer_decay_groups
from train.engine.optim import guarded_step, make_optimizer, make_schedule, scaled_lr
from train.engine.runlog import Meter, step_line
from train.objective.classification import SoftLoss, build
from train.recipes import loading
from train.recipes.classification import FinetuneConfig, check
from train.scoring.evaluation import Evaluation, evaluate, write_evaluation

MODEL = "model.safetensors"
_ASK_EVERY = 10  # steps between two questions whether another process was told to stop


def main(argv: list[str]) -> int:
    config = loading.load(FinetuneConfig, argv, "mme finetune", __doc__)
    check(config)
    ranks = connect(config.device)
    try:
        return Finetuning(config, ranks).run()
    finally:
        disconnect()


class Finetuning:
    """One run: what it is made of, its loop, its checkpoints."""

    def __init__(self, config: FinetuneConfig, ranks: Ranks) -> None:
        folder.check_folder(config)
        self.config, self.ranks, self.out = config, ranks, Path(config.out)
        data, optim, augment = config.data, config.optim, config.augment

        # What is learnt, from what.
        self.sources: Sources = open_sources(data, config.store, config.val_store)
        self.class_names = list(self.sources.train.class_names)
        # raw frames; the held-out videos, and those of a later evaluation, may come from elsewhere
        self.stride = self.sources.train.stride if data.stride is None else data.stride
        clips = TrainClips(
            self.sources.train,
            frames=config.model.frames,
            size=config.model.image_size,
            sampling=data.sampling,
            stride=frame_stride(self.stride, self.sources.train),
            crops=data.crops,
            still=data.still,
            augment=augment,
            seed=config.seed,
        )
        self.sampler = ClipSampler(
            len(clips),
            data.batch_size // data.crops,
            rank=ranks.rank,
            world=ranks.world,
            accumulate=optim.accumulate,
            seed=config.seed,
        )
        self.loader = make_loader(clips, self.sampler, collate_train, data.workers)
        self.dtype = autocast_dtype(config.precision, ranks.device)
        classes = len(self.class_names)
        self.loss = SoftLoss.of(augment, classes, data.batch_size, ranks.device, self.dtype)

        # The model.
        bare, self.loaded = build(config, classes)
        self.bare = bare.to(ranks.device)
        self.ema = ModelEmaV3(self.bare, decay=config.ema) if config.ema else None
        self.model: nn.Module = ranks.wrap(torch.compile(bare) if config.compile else bare)

        # The optimiser: its rate follows the videos of a step and falls from layer to layer.
        self.videos_per_step = self.sampler.batch_size * ranks.world * optim.accumulate
        self.steps_per_epoch = len(self.sampler) // optim.accumulate
        self.steps = optim.steps or optim.epochs * self.steps_per_epoch
        self.lr = scaled_lr(optim.lr, self.videos_per_step)
        depth = len(bare.encoder.blocks)
        groups = layer_decay_groups(bare, depth, optim.layer_decay, optim.weight_decay)
        self.optimizer = make_optimizer(bare, optim, self.lr, groups)
        warmup = min(round(optim.warmup_epochs * self.steps_per_epoch), self.steps // 2)
        min_lr = scaled_lr(optim.min_lr, self.videos_per_step)
        self.schedule = make_schedule(self.optimizer, self.steps, warmup, min_lr)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype is torch.float16)
        self.step = 0

    def run(self) -> int:
        """Trains, evaluates and writes; returns the exit status."""
        warnings: list[str] = []
        state = checkpoint.load_last(self.out, warnings.append)
        if state is not None:
            self._restore(state)
        self.log = folder.begin(self.config, self.ranks, self.step, warnings)
        self._introduce()
        stop = StopRequest()
        try:
            if self._train(stop):
                return STOPPED
            self._finish()
        finally:
            stop.close()
            self.log.close()
        return 0

    def _introduce(self) -> None:
        train, val, say = self.sources.train, self.sources.val, self.log.say
        say(
            f"fine-tuning {self.config.model.size}: {len(train.ids)} training videos, "
            f"{len(val.ids)} held out, {len(self.class_names)} classes; {self.loaded}"
        )
        say(
            f"{self.videos_per_step} videos a step, crops of each {self.config.data.crops}; "
            f"learning rate {self.lr:.3g} = optim.lr {self.config.optim.lr:.3g} × "
            f"{self.videos_per_step} / 256; {self.steps} steps, {self.steps_per_epoch} an epoch"
        )
        if self.step:
            say(f"goes on after step {self.step}")

    def _train(self, stop: StopRequest) -> bool:
        """Up to the last step; True when a signal stopped it (a checkpoint is then written)."""
        config, accumulate = self.config, self.config.optim.accumulate
        self.sampler.first = self.step * accumulate
        batches = iter(self.loader)
        clips = config.data.batch_size * accumulate * self.ranks.world
        meter = Meter(clips, self.steps - self.step)
        losses: list[Tensor] = []
        unreadable: set[str] = set()
        while self.step < self.steps:
            self.schedule.step_update(self.step)  # timm's multiplies by each group's lr_scale
            began = time.perf_counter()
            micro = [next(batches) for _ in range(accumulate)]
            meter.waited += time.perf_counter() - began
            self._note_unreadable(micro, unreadable)
            loss, norm = self._step(micro)
            losses.append(loss)
            self.step += 1
            meter.steps += 1
            last = self.step == self.steps
            if last or self.step % config.log.every == 0:
                self._log_step(meter, losses, norm, len(unreadable))
                losses = []
            asked = self._asked(stop)
            if last or asked or self.step % config.checkpoint.every == 0:
                self._save()
            if asked and not last:
                self.log.say(f"stopped after step {self.step}; the same command goes on from there")
                return True
            every = config.eval.every * self.steps_per_epoch
            if every and self.step % every == 0 and not last:
                self._validate()
        return False

    def _asked(self, stop: StopRequest) -> bool:
        """Whether any process was told to stop; all of them must see it at the same step."""
        if self.ranks.world == 1:
            return bool(stop)
        return self.step % _ASK_EVERY == 0 and any(self.ranks.gather(bool(stop)))

    def _step(self, micro: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """One optimiser step; the mean loss of its micro-batches and the gradient's norm."""
        self.model.train()
        total = torch.zeros((), device=self.ranks.device)
        for number, batch in enumerate(micro):
            seed_all([self.config.seed, self.step, number, self.ranks.rank])
            waits = number < len(micro) - 1 and self.ranks.world > 1
            with self.model.no_sync() if waits else contextlib.nullcontext():
                loss = self.loss(self.model, batch) / len(micro)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        parameters = list(self.bare.parameters())
        clip = self.config.optim.clip
        norm = guarded_step(self.optimizer, self.scaler, parameters, total, clip)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.bare, step=self.step)
        return total, norm

    def _note_unreadable(self, micro: list[dict[str, Any]], known: set[str]) -> None:
        for batch in micro:
            if "frames" not in batch:
                raise VideoError(f"no video of a batch can be read: {batch['failed'][0]}")
            for text in set(batch["failed"]) - known:
                known.add(text)
                self.log.warn(f"unreadable, another video of its batch stands in: {text}")

    def _log_step(self, meter: Meter, losses: list[Tensor], norm: Tensor, unreadable: int) -> None:
        loss = float(self.ranks.sum(torch.stack(losses).mean())) / self.ranks.world
        if not math.isfinite(loss):
            raise MMEError(
                f"the loss is not a number before step {self.step}: lower optim.lr, or use "
                f"precision=bf16 or fp32; the last checkpoint in {self.out} is sound"
            )
        row = {
            "step": self.step,
            "epoch": self.step / self.steps_per_epoch,
            "loss": loss,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "grad_norm": float(norm),
            "unreadable": unreadable,
            **meter.read(self.ranks.device),
        }
        self.log.row(row)
        self.log.say(step_line(row, self.steps, []), f"loss {row['loss']:.4f}")

    def _evaluate(self, clips: int, crops: int) -> Evaluation:
        config = self.config
        plan = ViewPlan(
            sampling=config.data.sampling,
            stride=frame_stride(self.stride, self.sources.val),
            frames=config.model.frames,
            size=config.model.image_size,
            clips=clips,
            crops=crops,
            still=config.data.still,
        )
        return evaluate(
            self.evaluated,
            self.sources.val,
            plan,
            self.ranks,
            batch=config.eval.batch,
            workers=config.data.workers,
            dtype=self.dtype,
        )

    def _log_metrics(self, prefix: str, result: Evaluation) -> None:
        values = {f"{prefix}_{name}": value for name, value in result.metrics.to_dict().items()}
        self.log.row({"step": self.step, "epoch": self.step / self.steps_per_epoch, **values})
        self.log.say(f"held out: {result}")

    def _validate(self) -> None:
        self._log_metrics("val", self._evaluate(1, 1))

    def _finish(self) -> None:
        result = self._evaluate(self.config.eval.clips, self.config.eval.crops)
        if not self.ranks.main:
            return
        save_weights(
            self.out / MODEL,
            self.evaluated.state_dict(),
            frames=self.config.model.frames,
            image_size=self.config.model.image_size,
            class_names=self.class_names,
            recipe=self._recipe(),
        )
        write_evaluation(self.out, result, self.sources.val)
        self._log_metrics("final", result)
        self.log.say(f"written to {self.out}: {MODEL}, evaluation.json, predictions.csv, pictures")

    def _recipe(self) -> dict[str, Any]:
        """The configuration as it goes beside the weights, with the stride that was used."""
        recipe = loading.to_dict(self.config)
        recipe["data"]["stride"] = self.stride
        return recipe

    @property
    def evaluated(self) -> Classifier:
        """The moving average of the weights, where there is one."""
        return self.ema.module if self.ema else self.bare

    def _save(self) -> None:
        if not self.ranks.main:
            return
        state = {
            "model": self.bare.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "sampler": self.sampler.state_dict(self.step * self.config.optim.accumulate),
            "class_names": self.class_names,
            "config": self._recipe(),
        }
        checkpoint.save(self.out, self.step, state, self.config.checkpoint.keep)

    def _restore(self, state: dict[str, Any]) -> None:
        """Goes on exactly: every draw is a function of seed, step and rank."""
        source = f"the checkpoint in {self.out}"
        checkpoint.load_weights(self.bare, state["model"], source)
        if self.ema:
            checkpoint.load_weights(self.ema.module, state["ema"] or state["model"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(state["sampler"])
        self.step = state["step"]
