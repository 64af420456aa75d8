"""Metrics of a classifier and their files: accuracies, confusion matrix, predictions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mme_core.report.words import shorten

TOP = 5  # best classes that are listed for a video
NAME = 30  # longest class name in a picture, letters


@dataclass(frozen=True)
class Metrics:
    """Accuracies of the videos that were read, as fractions.

    mean_class  mean of the classes' accuracies, over the classes that have videos
    videos      number of videos that were read
    asked       number of videos that were to be read; coverage is videos / asked
    confusion   int64 [true class, predicted class]
    """

    top1: float
    top5: float
    mean_class: float
    videos: int
    asked: int
    confusion: np.ndarray

    @property
    def coverage(self) -> float:
        return self.videos / self.asked

    def to_dict(self) -> dict[str, float | int]:
        return {
            "top1": self.top1,
            "top5": self.top5,
            "mean_class": self.mean_class,
            "videos": self.videos,
            "asked": self.asked,
            "coverage": self.coverage,
        }


def measure(scores_VC: np.ndarray, labels_V: np.ndarray, asked: int) -> Metrics:
    """Metrics of the videos that were read. Of equal scores the lower class number wins."""
    classes = scores_VC.shape[1]
    ranked = rank(scores_VC)
    hits = ranked == labels_V[:, None]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels_V, ranked[:, 0]), 1)
    present = confusion.sum(1) > 0
    recall = np.diag(confusion)[present] / confusion.sum(1)[present]
    return Metrics(
        top1=float(hits[:, 0].mean()),
        top5=float(hits[:, :TOP].any(1).mean()),
        mean_class=float(recall.mean()),
        videos=len(labels_V),
        asked=asked,
        confusion=confusion,
    )


def rank(scores_VC: np.ndarray) -> np.ndarray:
    """The classes of each video from the best score to the worst, int64 [V, C]."""
    return np.argsort(-scores_VC, axis=1, kind="stable")


def write_predictions(
    path: Path, ids: Sequence[str], labels: np.ndarray, scores_VC: np.ndarray, names: Sequence[str]
) -> None:
    """One row for each video: id, label (empty if unknown), the best classes and their scores."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        ranks = range(1, min(TOP, len(names)) + 1)
        head = [word for i in ranks for word in (f"class_{i}", f"score_{i}")]
        writer.writerow(["id", "label", *head])
        for video, label, scores, order in zip(ids, labels, scores_VC, rank(scores_VC)):
            best = [word for c in order[:TOP] for word in (names[c], f"{scores[c]:.6f}")]
            writer.writerow([video, names[label] if label >= 0 else "", *best])


def write_per_class(path: Path, confusion: np.ndarray, names: Sequence[str]) -> None:
    """One row for each class: videos, correct, accuracy, and its most frequent wrong prediction."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "videos", "correct", "accuracy", "most_confused_with"])
        for c, row in enumerate(confusion):
            wrong = row.copy()
            wrong[c] = 0
            other = names[int(wrong.argmax())] if wrong.any() else ""
            accuracy = f"{row[c] / row.sum():.4f}" if row.any() else ""
            writer.writerow([names[c], int(row.sum()), int(row[c]), accuracy, other])


def as_label(name: str, most: int) -> str:
    """A name for a picture: at most `most` letters. Matplotlib would read `$` as mathematics."""
    return shorten(name, most).replace("$", r"\$")


def draw_confusion(path: Path, confusion: np.ndarray, names: Sequence[str]) -> None:
    """Draws the confusion matrix with normalised rows as a PNG; names for up to 60 classes."""
    from matplotlib.figure import Figure

    classes, names = len(names), [as_label(name, NAME) for name in names]
    labels = 0.09 * max(map(len, names)) if classes <= 60 else 0  # inches
    side = float(np.clip(1.5 + 0.4 * classes, 4, 16)) + labels
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= 60:
        axes.set_xticks(range(classes), names, rotation=90)
        axes.set_yticks(range(classes), names)
    if classes <= 20:
        for (true, predicted), count in np.ndenumerate(confusion):
            colour = "white" if share[true, predicted] > 0.5 else "black"
            axes.text(predicted, true, str(count), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110)
