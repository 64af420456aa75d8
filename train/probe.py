"""`mme probe`: what a frozen encoder's features are worth, beside random weights and still frames.

    mme probe --config probe/demo.yaml init=runs/pretrain store=out/train val_store=out/val \\
        out=runs/probe

Features are extracted once. Linear and attentive probes are trained for all learning rates and
weight decays at once; the pair is chosen on a held-out part of the training videos, then trained
anew on all of them, so that the test videos choose nothing. The same for k of kNN. Every number
stands beside that of random weights, and of one still frame repeated: what the picture alone says.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mme_core.encoder import Backbone, backbone_from, model_config, random_backbone
from mme_core.errors import UsageError
from mme_core.model import SIZES
from mme_core.weights.load import read_weights
from train.data.labelled import ViewPlan
from train.data.sources import Source, Sources, frame_stride, open_sources
from train.engine import folder
from train.engine.distributed import Ranks, autocast_dtype, connect, disconnect
from train.evaluate import trained_data
from train.recipes import loading
from train.recipes.classification import LabelledDataConfig, ViewConfig
from train.recipes.pretraining import ModelConfig
from train.scoring.frozen import FrozenSet, TokenFile, extract_set
from train.scoring.knn import knn_accuracy
from train.scoring.probes import AttentiveProbes, LinearProbes, accuracies, train_probes, trials

PATIENCE = timedelta(days=1)  # the main process trains the probes while the others wait
KINDS = ("linear", "attentive", "knn")


@dataclass
class ProbeConfig:
    init: str = "???"  # weights (see `mme convert`), or "none" for random ones of model.* alone
    out: str = "???"
    store: str | None = None
    val_store: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    probes: list[str] = field(default_factory=lambda: list(KINDS))
    baselines: bool = True  # random weights and still frames beside
    lrs: list[float] = field(default_factory=lambda: [5e-3, 3e-3, 1e-3, 3e-4, 1e-4])
    weight_decays: list[float] = field(default_factory=lambda: [0.01, 0.1, 0.4, 0.8])
    neighbours: list[int] = field(default_factory=lambda: [1, 5, 10, 20])
    epochs: int = 50
    batch_size: int = 256
    attention_heads: int = 4
    choice_share: float = 0.2  # of the training videos, to choose lr, weight decay and k
    shots: list[int] = field(default_factory=list)  # linear probe on so many videos of each class
    shot_draws: int = 5
    model: ModelConfig = field(default_factory=ModelConfig)
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    view: ViewConfig = field(default_factory=lambda: ViewConfig(clips=1, crops=1))


@dataclass(frozen=True)
class Split:
    """Training rows to learn from and to choose by."""

    learn: Tensor
    choose: Tensor


def stratified_split(labels_N: np.ndarray, share: float, seed: int) -> Split:
    """A share of each class (at least one video where it has two) to choose by, drawn by seed."""
    rng = np.random.default_rng([seed, len(labels_N)])
    choose = []
    for label in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        if len(rows) > 1:
            choose += rows[: max(1, round(share * len(rows)))].tolist()
    learn = np.setdiff1d(np.arange(len(labels_N)), choose)
    if not len(choose) or not len(learn):
        raise UsageError("too few training videos to choose by: every class needs two at least")
    return Split(torch.from_numpy(learn), torch.tensor(sorted(choose)))


def draw_shots(labels_N: np.ndarray, shots: int, seed: int) -> Split:
    """`shots` videos of each class to learn from; the rest of the training videos choose."""
    rng = np.random.default_rng([seed, shots])
    classes, counts = np.unique(labels_N, return_counts=True)
    if counts.min() <= shots:
        raise UsageError(
            f"shots={shots}: class number {classes[counts.argmin()]} has {counts.min()} training "
            "videos, and one must be left to choose by"
        )
    drawn = [rng.permutation(np.flatnonzero(labels_N == c))[:shots] for c in classes]
    learn = np.sort(np.concatenate(drawn))
    rest = np.setdiff1d(np.arange(len(labels_N)), learn)
    return Split(torch.from_numpy(learn), torch.from_numpy(rest))


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy of what was chosen, and the accuracies of all trials for the record."""

    accuracy: float
    chosen: dict[str, float]
    trials: list[dict[str, float]]


class Prober:
    """Probes on one pair of frozen sets."""

    def __init__(self, config: ProbeConfig, train: FrozenSet, val: FrozenSet, classes: int) -> None:
        self.config, self.train, self.val, self.classes = config, train, val, classes
        self.trials = trials(config.lrs, config.weight_decays)
        self.device = train.pooled.device

    def run(self, kind: str) -> ProbeResult:
        share, seed = self.config.choice_share, self.config.seed
        split = stratified_split(self.train.labels.cpu().numpy(), share, seed)
        if kind == "knn":
            return self._knn(split)
        everything = torch.arange(len(self.train.labels))
        return self._swept(kind, split, everything)

    def few_shot(self, shots: int) -> list[float]:
        """Test accuracies of the linear probe for several draws of `shots` videos a class."""
        labels = self.train.labels.cpu().numpy()
        splits = [draw_shots(labels, shots, draw) for draw in range(self.config.shot_draws)]
        return [self._swept("linear", split, split.learn).accuracy for split in splits]

    def _swept(self, kind: str, split: Split, final: Tensor) -> ProbeResult:
        """Chooses a trial by the split, then trains all on `final` and tests them."""
        chooser = self._fit(kind, split.learn)
        chosen_by = self._test(chooser, kind, self.train, split.choose)
        best = int(chosen_by.argmax())
        tested = self._test(self._fit(kind, final), kind, self.val, None)
        rows = [
            {**dataclasses.asdict(trial), "choice": float(choice), "test": float(test)}
            for trial, choice, test in zip(self.trials, chosen_by, tested)
        ]
        return ProbeResult(float(tested[best]), dataclasses.asdict(self.trials[best]), rows)

    def _fit(self, kind: str, rows: Tensor) -> torch.nn.Module:
        config = self.config
        torch.manual_seed(config.seed)
        count, width = len(self.trials), self.train.pooled.shape[-1]
        if kind == "linear":
            probes = LinearProbes(count, width, self.classes)
        else:
            probes = AttentiveProbes(count, width, self.classes, config.attention_heads)
        read = self._reader(kind, self.train)
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
        if kind == "linear":
            return lambda index: data.pooled[index.to(self.device)]
        return lambda index: data.tokens.read(index).to(self.device)

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


def check(config: ProbeConfig) -> None:
    for kind in config.probes:
        if kind not in KINDS:
            raise UsageError(f"probes: '{kind}' is not one of {', '.join(KINDS)}")
    for key in ("probes", "lrs", "weight_decays", "neighbours"):
        if not getattr(config, key):
            raise UsageError(f"{key}=[] must name one at least")
    if not 0 < config.choice_share < 1:
        raise UsageError(f"choice_share={config.choice_share} must be between 0 and 1")


def check_heads(config: ProbeConfig, model: ModelConfig) -> None:
    width = SIZES[model.size][0]
    if "attentive" in config.probes and width % config.attention_heads:
        raise UsageError(
            f"attention_heads={config.attention_heads} must divide the encoder's width of {width}"
        )


def main(argv: list[str]) -> int:
    config = loading.load(ProbeConfig, argv, "mme probe", __doc__)
    check(config)
    folder.check_command(config)
    ranks = connect(config.device, PATIENCE)
    try:
        sources = open_sources(config.data, config.store, config.val_store)
        report = probe_all(config, sources, ranks)
        if ranks.main:
            path = Path(config.out) / "probe.json"
            path.write_text(json.dumps(report, indent=2))
            show(report)
            print(f"written to {path}")
        return 0
    finally:
        disconnect()


def probe_all(config: ProbeConfig, sources: Sources, ranks: Ranks) -> dict[str, Any]:
    """Every probe on every kind of weights and of clips: rows of a table, and what was used."""
    encoders: dict[str, Backbone] = {}
    model, recipe = config.model, {}
    if config.init != "none":
        weights = read_weights(config.init)
        model, recipe = model_config(weights), weights.recipe
        encoders[config.init] = backbone_from(weights)
    if config.init == "none" or config.baselines:
        encoders["random weights"] = random_backbone(model, config.seed)
    check_heads(config, model)
    if ranks.main:
        folder.write_config(config)  # before the work, so that a folder nobody may write is found
    rows, coverage = [], {}
    for name, encoder in encoders.items():
        for still in (False, True) if config.baselines else (config.data.still,):
            pair = _frozen_pair(config, model, recipe, sources, encoder, still, ranks)
            if not ranks.main:
                continue
            train, val = pair
            row = {"weights": name, "clip": "still frame" if still else "video"}
            prober = Prober(config, train, val, len(sources.train.class_names))
            row |= {kind: dataclasses.asdict(prober.run(kind)) for kind in config.probes}
            row |= {f"{n}-shot": prober.few_shot(n) for n in config.shots}
            rows.append(row)
            coverage = {
                "training_videos": len(train.labels),
                "test_videos": len(val.labels),
                "not_read": train.failures + val.failures,
            }
            for frozen in pair:
                frozen.close()
    return {"rows": rows, **coverage, "classes": len(sources.train.class_names)}


def _frozen_pair(
    config: ProbeConfig,
    model: ModelConfig,
    recipe: dict[str, Any],
    sources: Sources,
    encoder: Backbone,
    still: bool,
    ranks: Ranks,
) -> tuple[FrozenSet, FrozenSet]:
    sampling, stride = trained_data(recipe, config.data)
    stride = sources.train.stride if stride is None else stride

    def one(source: Source, name: str) -> FrozenSet:
        plan = ViewPlan(
            sampling=sampling,
            stride=frame_stride(stride, source),
            frames=model.frames,
            size=model.image_size,
            clips=config.view.clips,
            crops=config.view.crops,
            still=still,
        )
        tokens = TokenFile(Path(config.out) / f".tokens-{name}.bin", encoder)
        return extract_set(
            encoder.to(ranks.device),
            source,
            plan,
            ranks,
            tokens=tokens if "attentive" in config.probes else None,
            batch=config.view.batch,
            workers=config.data.workers,
            dtype=autocast_dtype(config.precision, ranks.device),
        )

    return one(sources.train, "train"), one(sources.val, "val")


def show(report: dict[str, Any]) -> None:
    """The accuracies as a table on the terminal."""
    rows = report["rows"]
    columns = [name for name in rows[0] if name not in ("weights", "clip")]
    table = Table(
        title=f"{report['test_videos']} test videos, {report['training_videos']} training videos, "
        f"{report['classes']} classes"
        + (f"; {len(report['not_read'])} videos not read" if report["not_read"] else "")
    )
    for name in ("weights", "clip", *columns):
        table.add_column(name)
    for row in rows:
        cells = [_cell(row[name]) for name in columns]
        table.add_row(row["weights"], row["clip"], *cells)
    Console().print(table)


def _cell(value: dict[str, Any] | list[float]) -> str:
    if isinstance(value, dict):
        return f"{value['accuracy']:.1%}"
    return f"{np.mean(value):.1%} ± {np.std(value):.1%}"
