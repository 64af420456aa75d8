"""`mme finetune`: a pre-trained encoder becomes a classifier, in VideoMAE's recipe.

    mme finetune --config finetune/demo.yaml init=runs/pretrain store=out/train val_store=out/val \
        out=runs/finetune
    torchrun --nproc-per-node=8 -m mme_core finetune --config finetune/k400.yaml init=… …

OUT then holds config.yaml, metrics.jsonl, checkpoints, model.safetensors (the classifier, as
`mme evaluate`, `predict` and `export` take it) and the tables and pictures of the evaluation.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from timm.data.mixup import Mixup, mixup_target
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mme_core.model import Classifier, build_classifier
from train import checkpoint, runs
from train import config as recipes
from train.clip_augment import erase, seed_all
from train.clip_data import TrainClips, ViewPlan, collate_train, normalise
from train.clips import Sources, frame_stride, open_sources
from train.convert import save_weights
from train.distributed import STOPPED, Ranks, StopRequest, autocast_dtype, connect, disconnect
from train.evaluate import evaluate, write_evaluation
from train.finetune_config import FinetuneConfig, check
from train.layer_decay import layer_decay_groups
from train.logging import Meter, RunLog, step_line
from train.mixup import build_mixup, mix
from train.optim import guarded_step, make_optimizer, make_schedule, scaled_lr
from train.sampler import ClipSampler
from train.weights import load_weights, read_weights

MODEL = "model.safetensors"


def main(argv: list[str]) -> int:
    config = recipes.load(FinetuneConfig, argv, "mme finetune", __doc__)
    check(config)
    ranks = connect(config.device)
    try:
        return Finetuning(config, ranks).run()
    finally:
        disconnect()


def build(config: FinetuneConfig, num_classes: int) -> tuple[Classifier, str]:
    """The classifier with its initial weights, and what was loaded into it, for the log."""
    torch.manual_seed(config.seed)  # the head, and the encoder where init=none
    model = build_classifier(
        config.model.size,
        num_classes,
        frames=config.model.frames,
        image_size=config.model.image_size,
        patch=config.model.patch,
        depth=config.model.depth,
        drop_path=config.model.drop_path,
        fc_dropout=config.model.fc_dropout,
    )
    if config.init == "none":
        return model, "random weights"
    report = load_weights(model, read_weights(config.init), head=False)
    return model, f"{config.init}: {report}"


class Finetuning:
    """One run: what it is made of, its loop, its checkpoints."""

    def __init__(self, config: FinetuneConfig, ranks: Ranks) -> None:
        runs.check_folder(config)
        self.config, self.ranks = config, ranks
        self.out = Path(config.out)
        self.sources: Sources = open_sources(config.data, config.store, config.val_store)
        self.class_names = list(self.sources.train.class_names)
        bare, self.loaded = build(config, len(self.class_names))
        self.bare = bare.to(ranks.device)
        self._build_data()
        self._build_optimiser()
        self.ema = ModelEmaV3(self.bare, decay=config.ema) if config.ema else None
        model = torch.compile(self.bare) if config.compile else self.bare
        self.model: nn.Module = ranks.wrap(model)
        self.step = 0

    def _build_data(self) -> None:
        data, model = self.config.data, self.config.model
        self.clips = TrainClips(
            self.sources.train,
            frames=model.frames,
            size=model.image_size,
            sampling=data.sampling,
            stride=frame_stride(data.stride, self.sources.train),
            crops=data.crops,
            augment=self.config.augment,
            seed=self.config.seed,
        )
        self.sampler = ClipSampler(
            len(self.clips),
            data.batch_size // data.crops,
            rank=self.ranks.rank,
            world=self.ranks.world,
            accumulate=self.config.optim.accumulate,
            seed=self.config.seed,
        )
        self.mixup: Mixup | None = build_mixup(
            self.config.augment.mixup,
            self.config.augment.cutmix,
            self.config.augment.smoothing,
            len(self.class_names),
            data.batch_size,
        )

    def _build_optimiser(self) -> None:
        optim = self.config.optim
        videos = self.sampler.batch_size * self.ranks.world * optim.accumulate
        self.steps_per_epoch = len(self.sampler) // optim.accumulate
        self.steps = optim.steps or optim.epochs * self.steps_per_epoch
        self.videos_per_step, self.lr = videos, scaled_lr(optim.lr, videos)
        depth = len(self.bare.encoder.blocks)
        groups = layer_decay_groups(self.bare, depth, optim.layer_decay, optim.weight_decay)
        names = [group.pop("names") for group in groups]
        self.scales = [group.pop("lr_scale") for group in groups]
        self.group_names = names
        self.optimizer = make_optimizer(self.bare, optim, self.lr, groups)
        self.schedule = make_schedule(
            self.optimizer,
            self.steps,
            min(round(optim.warmup_epochs * self.steps_per_epoch), self.steps // 2),
            scaled_lr(optim.min_lr, videos),
        )
        self.dtype = autocast_dtype(self.config.precision, self.ranks.device)
        self.scaler = torch.amp.GradScaler(
            self.ranks.device.type, enabled=self.dtype is torch.float16
        )

    def run(self) -> int:
        """Trains, evaluates and writes; returns the exit status."""
        state = checkpoint.load_last(self.out, print)
        if state is not None:
            self.restore(state)
        elif self.ranks.main:
            runs.write_config(self.config)
        log = RunLog(
            self.out,
            self.ranks.main,
            recipes.to_dict(self.config),
            wandb=self.config.log.project if self.config.log.wandb else None,
            after=self.step,
        )
        self._introduce(log, resumed=state is not None)
        stop = StopRequest()
        try:
            stopped = self._train(log, stop)
            if stopped:
                return STOPPED
            self._finish(log)
        finally:
            stop.close()
            log.close()
        return 0

    def _introduce(self, log: RunLog, resumed: bool) -> None:
        train, val = self.sources.train, self.sources.val
        log.say(
            f"fine-tuning {self.config.model.size}: {len(train.ids)} training videos, "
            f"{len(val.ids)} held out, {len(self.class_names)} classes; {self.loaded}"
        )
        log.say(
            f"{self.videos_per_step} videos a step × {self.config.data.crops} crops; learning rate "
            f"{self.lr:.3g} = optim.lr {self.config.optim.lr:.3g} × {self.videos_per_step} / 256; "
            f"{self.steps} steps, {self.steps_per_epoch} an epoch"
        )
        if resumed:
            log.say(f"resumed at step {self.step}")

    def _train(self, log: RunLog, stop: StopRequest) -> bool:
        """Up to the last step; True when a signal stopped it (a checkpoint is then written)."""
        config, accumulate = self.config, self.config.optim.accumulate
        batches = iter(self._loader())
        clips = config.data.batch_size * accumulate * self.ranks.world
        meter = Meter(clips, self.steps - self.step)
        total, unreadable = torch.zeros((), device=self.ranks.device), set()
        while self.step < self.steps:
            self.schedule.step_update(self.step)
            for group, scale in zip(self.optimizer.param_groups, self.scales):
                group["lr"] *= scale
            began = time.perf_counter()
            micro = [next(batches) for _ in range(accumulate)]
            meter.waited += time.perf_counter() - began
            loss, norm = self._step(micro)
            total += loss
            for batch in micro:
                for name in set(batch["failed"]) - unreadable:
                    unreadable.add(name)
                    log.warn(f"cannot be read, another video of its batch stands in: {name}")
            self.step += 1
            meter.steps += 1
            if self.step % config.log.every == 0 or self.step == self.steps:
                self._log_step(log, meter, total, norm, len(unreadable))
                total = torch.zeros_like(total)
            # every process must take the same branch: the signal may reach only one of them
            asked = any(self.ranks.gather(bool(stop))) if self._at_boundary(stop) else False
            if asked or self.step % config.checkpoint.every == 0 or self.step == self.steps:
                self.save()
            if asked:
                log.say(f"stopped at step {self.step}; the same command goes on from there")
                return True
            every = config.eval.every * self.steps_per_epoch
            if every and self.step % every == 0 and self.step < self.steps:
                self._validate(log)
        return False

    def _at_boundary(self, stop: StopRequest) -> bool:
        """One process asks at once; several agree every few steps, for asking costs a wait."""
        return bool(stop) if self.ranks.world == 1 else self.step % 10 == 0

    def _loader(self) -> DataLoader:
        workers = self.config.data.workers
        self.sampler.first = self.step * self.config.optim.accumulate
        return DataLoader(
            self.clips,
            batch_sampler=self.sampler,
            collate_fn=collate_train,
            num_workers=workers,
            pin_memory=self.ranks.device.type == "cuda",
            multiprocessing_context="forkserver" if workers else None,
        )

    def _step(self, micro: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """One optimiser step; the mean loss of its micro-batches and the gradient's norm."""
        self.model.train()
        total = torch.zeros((), device=self.ranks.device)
        for number, batch in enumerate(micro):
            seed_all([self.config.seed, self.step, number, self.ranks.rank])
            last = number == len(micro) - 1
            with _synchronised(self.model, last):
                loss = self._loss(batch) / len(micro)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        parameters = [p for p in self.bare.parameters() if p.requires_grad]
        clip = self.config.optim.clip
        norm = guarded_step(self.optimizer, self.scaler, parameters, total, clip)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.bare, step=self.step)
        return total, norm

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        device, augment = self.ranks.device, self.config.augment
        label = batch["label"].to(device, non_blocking=True)
        clip = normalise(batch["frames"].to(device, non_blocking=True))
        if augment.erase:
            clip = erase(clip, augment.erase)
        if self.mixup is not None:
            clip, target = mix(self.mixup, clip, label)
        else:
            target = mixup_target(label, len(self.class_names), 1.0, augment.smoothing)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype is not torch.float32):
            logits = self.model(clip)
        return F.cross_entropy(logits.float(), target)

    def _log_step(
        self, log: RunLog, meter: Meter, total: Tensor, norm: Tensor, unreadable: int
    ) -> None:
        steps = meter.steps
        mean = self.ranks.sum(total) / (self.ranks.world * max(steps, 1))
        row = {
            "step": self.step,
            "epoch": self.step / self.steps_per_epoch,
            "loss": float(mean),
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "grad_norm": float(norm),
            "unreadable": unreadable,
            **meter.read(self.ranks.device),
        }
        log.row(row)
        log.say(step_line(row, self.steps, []))

    @property
    def evaluated(self) -> Classifier:
        return self.ema.module if self.ema else self.bare

    def view_plan(self, clips: int, crops: int) -> ViewPlan:
        config = self.config
        return ViewPlan(
            sampling=config.data.sampling,
            stride=frame_stride(config.data.stride, self.sources.val),
            frames=config.model.frames,
            size=config.model.image_size,
            clips=clips,
            crops=crops,
            still=config.eval.still,
        )

    def _evaluate(self, clips: int, crops: int) -> Any:
        config = self.config
        return evaluate(
            self.evaluated,
            self.sources.val,
            self.view_plan(clips, crops),
            self.ranks,
            batch=config.eval.batch,
            workers=config.data.workers,
            dtype=self.dtype,
        )

    def _validate(self, log: RunLog) -> None:
        metrics = self._evaluate(1, 1).metrics
        values = {f"val_{name}": value for name, value in metrics.to_dict().items()}
        log.row({"step": self.step, "epoch": self.step / self.steps_per_epoch, **values})
        log.say(
            f"held out: top-1 {metrics.top1:.2%}, top-5 {metrics.top5:.2%} of {metrics.videos} "
            "videos, one view"
        )

    def _finish(self, log: RunLog) -> None:
        result = self._evaluate(self.config.eval.clips, self.config.eval.crops)
        if not self.ranks.main:
            return
        self.export(self.out / MODEL)
        write_evaluation(self.out, result, self.sources.val)
        final = {f"final_{name}": value for name, value in result.metrics.to_dict().items()}
        log.row({"step": self.step, "epoch": self.step / self.steps_per_epoch, **final})
        log.say(str(result))
        log.say(f"written to {self.out}: {MODEL}, evaluation.json, predictions.csv, confusion.png")

    def export(self, path: Path) -> None:
        """The classifier (its moving average, where there is one) as one file."""
        save_weights(
            path,
            self.evaluated.state_dict(),
            frames=self.config.model.frames,
            image_size=self.config.model.image_size,
            class_names=self.class_names,
            recipe=recipes.to_dict(self.config),
        )

    def save(self) -> None:
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
            "config": recipes.to_dict(self.config),
        }
        checkpoint.save(self.out, self.step, state, self.config.checkpoint.keep)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on exactly: every draw is a function of seed, step and rank."""
        source = f"the checkpoint in {self.out}"
        checkpoint.load_weights(self.bare, state["model"], source)
        if self.ema and state["ema"]:
            checkpoint.load_weights(self.ema.module, state["ema"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(state["sampler"])
        self.step = state["step"]


def _synchronised(model: nn.Module, last: bool) -> Any:
    """Only the last micro-batch of a step exchanges gradients."""
    if last or not hasattr(model, "no_sync"):
        return torch.enable_grad()
    return model.no_sync()
