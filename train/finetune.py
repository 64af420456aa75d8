"""`mme finetune`: a pre-trained encoder becomes a classifier, in VideoMAE's recipe.

    mme finetune --config finetune/demo.yaml init=runs/pretrain store=out/train val_store=out/val \\
        out=runs/finetune
    torchrun --nproc-per-node=8 --no-python mme finetune --config finetune/k400.yaml init=… …

OUT then holds config.yaml, metrics.jsonl, checkpoints, model.safetensors (the classifier, as
`mme evaluate`, `predict` and `export` take it) and the tables and pictures of the evaluation. The
same command resumes a run that was stopped or killed. SIGTERM, SIGUSR1, SIGHUP and Ctrl-C save and
stop with exit status 75; a second Ctrl-C ends at once with 130.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from timm.utils import ModelEmaV3

from mme_core.clips.views import DENSE
from mme_core.errors import UsageError, listed
from mme_core.flops import classifier_flops
from mme_core.model import Classifier
from mme_core.report.words import counted
from mme_core.weights.save import save_weights
from train.data.augment import rand_augment
from train.data.device_augment import augments_on_device
from train.data.labelled import TrainClips, ViewPlan, collate_train
from train.data.loader import make_loader
from train.data.sampler import ClipSampler, videos_per_batch
from train.data.sources import StoreSource, frame_stride, open_sources
from train.engine import folder
from train.engine.distributed import Ranks, autocast_dtype, check_residual, connected
from train.engine.loop import Loop
from train.engine.optim import layer_decay_groups
from train.engine.runlog import RunLog
from train.engine.signals import STOPPED, StoppedError
from train.engine.task import Task
from train.engine.unread import Unread
from train.objective.classification import ClassifierStep, Mixing, build
from train.recipes import loading
from train.recipes.classification import FinetuneConfig, ViewConfig
from train.scoring.evaluation import (
    Evaluation,
    Passes,
    evaluate,
    settled,
    view_plan,
    write_evaluation,
)

MODEL = "model.safetensors"


def main(argv: list[str]) -> int:
    config = loading.load(FinetuneConfig, argv, "mme finetune", __doc__)
    check(config)
    with connected(config.device) as ranks:
        return Finetuning(config, ranks).run()


def check(config: FinetuneConfig) -> None:
    """Raises UsageError for values that contradict each other."""
    if config.augment.rand_augment:
        rand_augment(config.augment.rand_augment)
    low, high = config.augment.scale
    if low > high:
        raise UsageError(f"augment.scale={config.augment.scale}: the smaller area comes first")
    videos_per_batch(config.data.batch_size, config.data.crops)


class Finetuning:
    """One run: its labelled videos, classifier and loss."""

    def __init__(self, config: FinetuneConfig, ranks: Ranks) -> None:
        folder.check_folder(config)
        self.config, self.ranks = config, ranks
        data, optim = config.data, config.optim
        self.sources = open_sources(data, config.store, config.val_store)
        train = self.sources.train
        self.class_names = list(train.class_names)
        # In frames of the video: the held-out videos, and those of a later evaluation, may come
        # from a store of another stride.
        self.stride = train.stride if data.stride is None else data.stride
        self._plan(1, 1)  # refuses held-out videos of an unfit stride before anything is trained
        clips = self._clips()
        sampler = ClipSampler(
            len(clips),
            videos_per_batch(data.batch_size, data.crops),
            rank=ranks.rank,
            world=ranks.world,
            accumulate=optim.accumulate,
            seed=config.seed,
        )
        self.loader = make_loader(clips, sampler, collate_train, data.workers)
        unread = Unread(data.bad_budget, self._mend)
        dtype = autocast_dtype(config.precision, ranks.device)
        check_residual(config.model.residual, dtype)
        classes = len(self.class_names)
        model, self.loaded = build(config, classes)
        self.model = model.to(ranks.device)
        depth = len(model.encoder.blocks)
        self.task = Task(
            model=self.model,
            step=ClassifierStep(self.model, dtype),
            batches=unread.watch(self.loader, ranks),
            sampler=sampler,
            video_ids=train.ids,
            lr_batch=sampler.batch_size * ranks.world * optim.accumulate,  # videos
            dtype=dtype,
            state={"class_names": self.class_names, "config": self._recipe()},
            check=self._check,
            evaluate=self._validate,
            evaluate_last=False,  # `_finish` does it with all views
            groups=layer_decay_groups(model, depth, optim.layer_decay, optim.weight_decay),
            average=ModelEmaV3(self.model, decay=config.ema) if config.ema else None,
            seed_draws=True,
            unread=unread,
            prepare=Mixing.of(config.augment, classes, data.batch_size),
            ready=self.loader.ready,
            flops=3 * classifier_flops(model),
        )

    def _clips(self) -> TrainClips:
        config, data, train = self.config, self.config.data, self.sources.train
        return TrainClips(
            train,
            frames=config.model.frames,
            size=config.model.image_size,
            sampling=data.sampling or DENSE,
            stride=frame_stride(self.stride, train),
            crops=data.crops,
            still=data.still,
            augment=config.augment,
            seed=config.seed,
            budget=data.bad_budget,
            on_device=augments_on_device(config.augment.place, self.ranks.device),
        )

    def run(self) -> int:
        """Trains, evaluates and writes the classifier; returns the exit status."""
        loop = Loop(self.config, self.ranks, self.task)
        with loop.begin() as self.log:
            self._introduce(loop.done)
            if loop.train():
                return STOPPED
            if loop.has_row("final_"):
                self.log.say("evaluated already; `mme evaluate` takes other views")
                return 0
            try:
                with loop.stop.at_once():
                    self._finish(loop)
            except StoppedError:
                self.log.say("stopped; the same command does the final evaluation again")
                return STOPPED
        return 0

    def _mend(self, videos: Collection[int]) -> str:
        """What makes videos that cannot be read whole again."""
        train = self.sources.train
        if isinstance(train, StoreSource):
            return f"run `mme repair {train.store.url}`"
        return f"mend or replace {listed([train.ids[video] for video in videos])}"

    def _introduce(self, done: int) -> None:
        train, val, data = self.sources.train, self.sources.val, self.config.data
        weights = f"weights of step {done}" if done else self.loaded
        self.log.say(
            f"fine-tuning {self.config.model.size}: {len(train.ids)} training videos, "
            f"{len(val.ids)} held out, {len(self.class_names)} classes; {weights}"
        )
        self.log.say(
            f"{counted(self.task.lr_batch, 'video')} a step, {counted(data.crops, 'crop')} of each"
        )

    def _plan(self, clips: int, crops: int) -> ViewPlan:
        config, views = self.config, ViewConfig(clips=clips, crops=crops)
        data = settled(config.data, {})
        return view_plan(self.sources.val, data, views, config.model, stride=self.stride)

    def _evaluate(self, clips: int, crops: int) -> Evaluation:
        config = self.config
        passes = Passes(config.eval.batch, config.data.workers, self.task.dtype)
        plan = self._plan(clips, crops)
        return evaluate(self.evaluated, self.sources.val, plan, self.ranks, passes)

    def _validate(self, _step: int, _log: RunLog) -> tuple[dict[str, Any], str]:
        """One view of each held-out video, between epochs."""
        result = self._evaluate(1, 1)
        return _metrics("val", result), str(result)

    def _finish(self, loop: Loop) -> None:
        """All views of the held-out videos; the main process writes the classifier and them."""
        result = self._evaluate(self.config.eval.clips, self.config.eval.crops)
        if not self.ranks.main:
            return
        out = Path(self.config.out)
        save_weights(
            out / MODEL,
            self.evaluated.state_dict(),
            frames=self.config.model.frames,
            image_size=self.config.model.image_size,
            class_names=self.class_names,
            recipe=self._recipe(),
        )
        write_evaluation(out, result, self.sources.val)
        loop.log_evaluation(_metrics("final", result), str(result))
        self.log.picture(loop.done, "confusion", out / "confusion.png")
        self.log.say(f"written to {out}: {MODEL}, evaluation.json, predictions.csv, pictures")

    @property
    def evaluated(self) -> Classifier:
        """The moving average of the weights, where there is one."""
        return self.task.average.module if self.task.average else self.model

    def _recipe(self) -> dict[str, Any]:
        """The configuration as it goes beside the weights, with the stride that was used."""
        recipe = loading.to_dict(self.config)
        recipe["data"]["stride"] = self.stride
        return recipe

    def _check(self, state: Mapping[str, Any], source: str) -> None:
        """Raises UsageError where a checkpoint was trained on other classes."""
        if state["class_names"] != self.class_names:
            raise UsageError(
                f"{source} was trained on other classes: {listed(state['class_names'])}"
            )


def _metrics(prefix: str, result: Evaluation) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in result.metrics.to_dict().items()}
