"""Held-out videos in pre-training: loss, loss of the best constant, kNN accuracy, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mme_core.clips.cell_contents import cells_needed
from mme_core.clips.contents import content_weights
from mme_core.clips.dataset import ClipDataset, Sample, collate
from mme_core.clips.views import to_model_input
from mme_core.errors import StoreError, VideoError, named
from mme_core.model import PretrainingModel
from mme_core.store import StoreUnion, TargetStore
from mme_core.store.union import parts
from mme_core.tokens import take_tokens
from mme_core.weights.run_folder import PICTURES
from train.data.loader import make_clip_loader
from train.data.sampler import ClipSampler
from train.data.sources import warn_of_overlap
from train.data.stores import check_complete, check_same_spec
from train.engine.device import on_device, read_back, to_device
from train.engine.distributed import Ranks
from train.engine.runlog import RunLog
from train.engine.signals import interrupt_waits
from train.objective.reconstruction import Objective, Question
from train.recipes.pretraining import PretrainConfig
from train.scoring.knn import knn_accuracy
from train.scoring.panels import draw_panels
from train.scoring.pixels import ERRORS, end_point_errors

Batch = Mapping[str, Tensor]
Failures = dict[tuple[bool, int], str]  # (is it a held-out video, its number): reason


class HeldOut:
    """The evaluations of a pre-training run on its held-out store.

    val_store  path or URL of the held-out store
    store      the training store

    Each held-out clip is the middle of its video and has the same mask every time. If the store has
    more than `eval.clips` videos, the seed alone decides which ones are used.
    """

    def __init__(
        self,
        config: PretrainConfig,
        val_store: str,
        store: TargetStore | StoreUnion,
        objective: Objective,
        ranks: Ranks,
    ) -> None:
        val = TargetStore(val_store)
        check_complete(val)
        check_same_spec(store, val)
        for part in parts(store):
            warn_of_overlap(part, val, "val_store")
        self.config, self.objective, self.ranks = config, objective, ranks
        self.val = clip_dataset(val, config, training=False)
        self.train = clip_dataset(store, config, training=False)
        self.knn = config.eval.knn if _same_classes(store, val) else 0
        self._failed: Failures = {}  # what this process could not read this time
        self._warned: set[tuple[bool, int]] = set()

    def __call__(self, model: PretrainingModel, step: int, log: RunLog) -> dict[str, float]:
        """Losses and accuracy as a row of metrics; the main process draws the panels.

        Random draws (shuffled frames) are the same every time, and the evaluation does not change
        the random numbers of the training.
        """
        device = self.ranks.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            return self._evaluate(model, step, log)

    def _evaluate(self, model: PretrainingModel, step: int, log: RunLog) -> dict[str, float]:
        self._failed = {}
        batches = self._batches(self.val, self.config.eval.clips)
        row = held_out_loss(model, self.objective, batches, self.ranks)
        if self.knn:
            row |= self._knn_accuracy(model)
        if self.ranks.main and self.config.eval.panels and "position" in self.objective.sizes:
            self._draw(model, step, log)
        row["val_bad"] = self._count_failed(log)
        return {name: round(value, 6) for name, value in row.items()}

    def _count_failed(self, log: RunLog) -> int:
        """Number of held-out clips that could not be read this time.

        Names them, and the training clips that kNN lacks, once in a run.
        """
        failed: Failures = {}
        for part in self.ranks.gather(self._failed):
            failed |= part
        for video in sorted(failed.keys() - self._warned):
            log.warn(f"left out of the evaluation, since it cannot be read: {failed[video]}")
        self._warned |= failed.keys()
        return sum(held_out for held_out, _ in failed)

    def _batches(self, data: ClipDataset, clips: int) -> Iterator[dict[str, Tensor]]:
        """This process' part of the first `clips` clips, in an order that is always the same."""
        sampler = ClipSampler(
            len(data),
            self.config.data.batch_size,
            rank=self.ranks.rank,
            world=self.ranks.world,
            seed=self.config.seed,
            endless=False,
            limit=clips,
        )
        loader = make_clip_loader(data, sampler, self.config.data.workers, full=False)
        try:
            readable = self._readable(loader, held_out=data is self.val)
            yield from on_device(readable, self.ranks.device)
        finally:
            with interrupt_waits():
                del loader  # its __del__ ends the workers, and would swallow a Ctrl-C

    def _readable(self, batches: Iterable[dict[str, Any]], held_out: bool) -> Iterator[Batch]:
        for batch in batches:
            failed = batch.pop("failed")
            self._failed |= {(held_out, video): text for video, text in failed.items()}
            if batch:
                yield batch

    def _knn_accuracy(self, model: PretrainingModel) -> dict[str, float]:
        """{"knn": accuracy}; {} where there are no clips of one side."""
        train = self._features(model, self.train, self.config.eval.knn_videos)
        val = self._features(model, self.val, self.config.eval.clips)
        if not (len(train[1]) and len(val[1])):
            return {}
        return {"knn": knn_accuracy(*train, *val, k=self.knn)}

    @torch.no_grad()
    def _features(
        self, model: PretrainingModel, data: ClipDataset, clips: int
    ) -> tuple[Tensor, Tensor]:
        """Mean tokens [M, width] and labels [M] of the clips of all processes, on the CPU."""

        def encoded() -> Iterator[tuple[None, list[Tensor]]]:
            for batch in self._batches(data, clips):
                with self.objective.autocast():
                    tokens = model.encode(to_model_input(batch["frames"]))
                yield None, [tokens.float().mean(1), batch["label"]]

        mine = [[torch.empty(0, model.encoder.width), torch.empty(0, dtype=torch.int64)]]
        model.eval()
        mine += [found for _, found in read_back(encoded(), self.ranks.device)]
        model.train()
        everyone = [found for rank in self.ranks.gather(mine) for found in rank]
        features, labels = (torch.cat(column) for column in zip(*everyone))
        return features, labels

    def _draw(self, model: PretrainingModel, step: int, log: RunLog) -> None:
        order = ClipSampler(len(self.val), 1, seed=self.config.seed, endless=False).order(0)
        samples = list(islice(_samples(self.val, order.tolist()), self.config.eval.panels))
        if not samples:
            return
        batch = to_device(collate(samples), self.ranks.device)
        names = [self.val.store.videos[int(sample["video"])]["id"] for sample in samples]
        folder = Path(self.config.out) / PICTURES
        paths = draw_panels(model, self.objective, batch, names, folder, step)
        for i, path in enumerate(paths):
            log.picture(step, f"trajectories-{i}", path)
        log.say(f"pictures of predicted trajectories in {folder}")


def _samples(clips: ClipDataset, videos: Iterable[int]) -> Iterator[Sample]:
    """The samples of the videos that can be read."""
    for video in videos:
        with suppress(StoreError, VideoError):
            yield clips[0, video]


@named(
    frames="model.frames",
    image_size="model.image_size",
    source="data.frames",
    root="data.root",
    crops="data.crops",
    crop="data.crop",
    zoom="data.zoom",
    speeds="data.speeds",
    mask="mask.kind",
    ratio="mask.ratio",
    contents="loss.contents",
    weights="loss.weights",
    cells="loss.contents needs spec.cells",
)
def clip_dataset(
    store: TargetStore | StoreUnion, config: PretrainConfig, training: bool
) -> ClipDataset:
    """The clips of a store, set up by the recipe. With training=False: one crop of each video."""
    return ClipDataset(
        store,
        frames=config.model.frames,
        image_size=config.model.image_size,
        source=config.data.frames,
        root=config.data.root,
        crops=config.data.crops if training else 1,
        crop=config.data.crop,
        zoom=config.data.zoom,
        flip=config.data.flip,
        speeds=config.data.speeds,
        mask=config.mask.kind,
        mask_ratio=config.mask.ratio,
        cells=cells_needed(content_weights(config.loss.contents, config.loss.weights)),
        seed=config.seed,
        training=training,
    )


def _same_classes(store: TargetStore | StoreUnion, val: TargetStore) -> bool:
    labelled = all(np.all(s.videos["label"] >= 0) for s in (store, val))
    return labelled and len(store.class_names) > 1 and store.class_names == val.class_names


@torch.no_grad()
def held_out_loss(
    model: PretrainingModel, objective: Objective, batches: Iterable[Batch], ranks: Ranks
) -> dict[str, float]:
    """Mean losses over the batches of all processes; each clip counts once.

    Returns val_loss and val_CONTENT, and constant_loss and constant_CONTENT: the loss of the best
    constant prediction on the same patches. A model that ignores its input cannot do better. With
    the content position also the end-point errors of `train.scoring.pixels`, in pixels.
    Returns {} where there are no batches.
    """
    # For each content: Σ w, Σ w·t and Σ w·t² of each of its D numbers, then Σ clips · loss.
    sizes = objective.sizes
    sums = {
        name: torch.zeros(3 * size + 1, dtype=torch.float64, device=objective.device)
        for name, size in sizes.items()
    }
    clips = torch.zeros((), dtype=torch.float64, device=objective.device)
    pixels = torch.zeros(len(ERRORS) + 1, dtype=torch.float64, device=objective.device)
    model.eval()
    for batch in batches:
        question = objective.ask(batch)
        predictions = objective.predict(model, question)
        _, terms = objective.loss(predictions, question)
        count = len(question.hidden)
        clips += count
        for name, total in sums.items():
            total[:-1] += _target_sums(objective, question, name)
            total[-1] += terms[name] * count
        if "position" in sizes:
            pixels += end_point_errors(objective, batch, question, predictions["position"])
    model.train()
    everyone = ranks.sum(clips) * objective.hidden
    if not clips:
        return {}
    losses = {"val_loss": 0.0, "constant_loss": 0.0}
    for name, total in sums.items():
        weight, first, second = ranks.sum(total)[:-1].reshape(3, -1)
        spread = (second - first.square() / weight.clamp_min(1)).sum()
        constant = float(spread / (everyone * sizes[name]))
        value = float(total[-1] / clips)
        losses |= {f"val_{name}": value, f"constant_{name}": constant}
        losses["val_loss"] += objective.weights[name] * value
        losses["constant_loss"] += objective.weights[name] * constant
    *errors, points = ranks.sum(pixels).tolist()
    if points:
        losses |= {name: error / points for name, error in zip(ERRORS, errors)}
    return losses


def _target_sums(objective: Objective, question: Question, name: str) -> Tensor:
    target, valid = (take_tokens(x, question.hidden) for x in question.targets[name])
    weight = valid.double() if objective.mask_invalid else torch.ones_like(valid).double()
    target, weight = torch.broadcast_tensors(target.double(), weight)
    powers = (weight, weight * target, weight * target.square())
    return torch.stack([power.sum((0, 1)) for power in powers]).flatten()
