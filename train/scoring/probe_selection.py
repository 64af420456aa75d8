"""Probes on frozen features: choosing a trial on training videos, and its test accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mme_core.errors import UsageError
from train.recipes.scoring import ProbeConfig
from train.scoring.frozen import FrozenSet
from train.scoring.knn import knn_accuracy
from train.scoring.probes import AttentiveProbes, LinearProbes, accuracies, train_probes, trials

TOKEN_PROBES = frozenset({"attentive", "temporal"})  # they need more than the pooled features


@dataclass(frozen=True)
class Split:
    """Rows of the training videos: `learn` to train on, `choose` to choose a trial by."""

    learn: Tensor
    choose: Tensor


def stratified_split(labels_N: np.ndarray, share: float, seed: int) -> Split:
    """Draws a share of each class to choose by, and leaves some of each class to learn from.

    At least one video of a class with two or more chooses, and at least one of each class learns.
    Raises UsageError if no class has two videos.
    """
    rng = np.random.default_rng([seed, len(labels_N)])
    choose = []
    for label in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        if len(rows) > 1:
            count = min(max(round(share * len(rows)), 1), len(rows) - 1)
            choose += rows[:count].tolist()
    learn = np.setdiff1d(np.arange(len(labels_N)), choose)
    if not len(choose) or not len(learn):
        raise UsageError("too few training videos to choose by: each class needs at least two")
    return Split(torch.from_numpy(learn), torch.tensor(sorted(choose)))


def check_shots(labels_N: np.ndarray, shots: int) -> None:
    """Raises UsageError if a class has too few videos to draw `shots` of them and leave one."""
    classes, counts = np.unique(labels_N, return_counts=True)
    if counts.min() <= shots:
        raise UsageError(
            f"shots={shots}: class number {classes[counts.argmin()]} has {counts.min()} training "
            "videos; it needs at least one more than shots"
        )


def draw_shots(labels_N: np.ndarray, shots: int, draw: int, seed: int) -> Split:
    """Draws `shots` videos of each class to train on; the other training videos choose.

    draw  number of the draw: each takes other videos
    Raises UsageError if a class has too few videos.
    """
    rng = np.random.default_rng([draw, shots, seed])
    check_shots(labels_N, shots)
    drawn = [rng.permutation(np.flatnonzero(labels_N == c))[:shots] for c in np.unique(labels_N)]
    learn = np.sort(np.concatenate(drawn))
    rest = np.setdiff1d(np.arange(len(labels_N)), learn)
    return Split(torch.from_numpy(learn), torch.from_numpy(rest))


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy of the chosen trial, and the accuracies of all trials for the record."""

    accuracy: float
    chosen: dict[str, float]
    trials: list[dict[str, float]]


class Prober:
    """Trains and tests probes on one pair of frozen sets."""

    def __init__(self, config: ProbeConfig, train: FrozenSet, val: FrozenSet, classes: int) -> None:
        self.config, self.train, self.val, self.classes = config, train, val, classes
        self.trials = trials(config.lrs, config.weight_decays)
        self.device = train.pooled.device
        self._readers: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}

    def run(self, kind: str) -> ProbeResult:
        """The result of one probe: linear, attentive, knn or temporal."""
        share, seed = self.config.choice_share, self.config.seed
        split = stratified_split(self.train.labels.cpu().numpy(), share, seed)
        if kind == "knn":
            return self._knn(split)
        everything = torch.arange(len(self.train.labels))
        return self._swept(kind, split, everything)

    def few_shot(self, shots: int) -> list[float]:
        """Test accuracies of the linear probe for several draws of `shots` videos of each class."""
        labels = self.train.labels.cpu().numpy()
        seed, draws = self.config.seed, range(self.config.shot_draws)
        splits = [draw_shots(labels, shots, draw, seed) for draw in draws]
        return [self._swept("linear", split).accuracy for split in splits]

    def _swept(self, kind: str, split: Split, final: Tensor | None = None) -> ProbeResult:
        """Chooses a trial by the split, then tests all trials.

        final  rows to train on anew before the test. Default: the test takes the probes that chose.
        """
        probes = self._fit(kind, split.learn)
        chosen_by = self._test(probes, kind, self.train, split.choose)
        best = int(chosen_by.argmax())
        if final is not None:
            probes = self._fit(kind, final)
        tested = self._test(probes, kind, self.val, None)
        rows = [
            {**dataclasses.asdict(trial), "choice": float(choice), "test": float(test)}
            for trial, choice, test in zip(self.trials, chosen_by, tested)
        ]
        return ProbeResult(float(tested[best]), dataclasses.asdict(self.trials[best]), rows)

    def _fit(self, kind: str, rows: Tensor) -> torch.nn.Module:
        config = self.config
        torch.manual_seed(config.seed)
        count, read = len(self.trials), self._reader(kind, self.train)
        width = read(rows[:1]).shape[-1]
        probes: torch.nn.Module
        if kind == "attentive":
            probes = AttentiveProbes(count, width, self.classes, config.attention_heads)
        else:
            probes = LinearProbes(count, width, self.classes)
        return train_probes(
            probes.to(self.device),
            lambda index: read(rows[index]),
            self.train.labels[rows.to(self.device)],
            self.trials,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
        )

    def _test(
        self, probes: torch.nn.Module, kind: str, data: FrozenSet, rows: Tensor | None
    ) -> Tensor:
        rows = torch.arange(len(data.labels)) if rows is None else rows
        read = self._reader(kind, data)
        labels = data.labels[rows.to(self.device)]
        return accuracies(probes, lambda index: read(rows[index]), labels, self.config.batch_size)

    def _reader(self, kind: str, data: FrozenSet) -> Callable[[Tensor], Tensor]:
        """A function of row numbers: a probe's inputs, float32 on the device."""
        key = (kind, id(data))
        if key not in self._readers:
            self._readers[key] = self._make_reader(kind, data)
        return self._readers[key]

    def _make_reader(self, kind: str, data: FrozenSet) -> Callable[[Tensor], Tensor]:
        if kind == "linear":
            return lambda index: data.pooled[index.to(self.device)]
        tokens = data.tokens
        assert tokens is not None  # `probe` extracts them for TOKEN_PROBES
        if kind == "temporal":
            means = tokens.tubelet_means().to(self.device)
            return lambda index: means[index.to(self.device)]
        resident = tokens.on(self.device)
        if resident is not None:
            return lambda index: resident[index.to(self.device)].float()
        return lambda index: tokens.read(index).to(self.device)

    def _knn(self, split: Split) -> ProbeResult:
        train, labels = self.train.pooled, self.train.labels
        learn, choose = split.learn.to(self.device), split.choose.to(self.device)
        rows = []
        for k in self.config.neighbours:
            choice = knn_accuracy(train[learn], labels[learn], train[choose], labels[choose], k)
            test = knn_accuracy(train, labels, self.val.pooled, self.val.labels, k)
            rows.append({"k": k, "choice": choice, "test": test})
        best = max(rows, key=lambda row: row["choice"])
        return ProbeResult(best["test"], {"k": best["k"]}, rows)
