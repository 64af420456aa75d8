"""Folders as training commands leave them, without training; and a file of features."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import yaml

CLASSES = ("jump", "<b>run</b>", "wave & turn")


def pretraining(folder: Path, lr: float = 0.001, init: str | None = None) -> Path:
    """A pre-training run of 40 logged steps, four evaluations and their pictures."""
    config = {"init": init, "out": str(folder), "seed": 0, "optim": {"lr": lr, "steps": 400}}
    config |= {"decoder": {"kind": "joint"}, "model": {"size": "tiny"}}
    folder.mkdir(parents=True)
    head = f"# optim.lr: {lr} (default: 0.00015)\n"
    (folder / "config.yaml").write_text(head + yaml.safe_dump(config))
    rows = []
    for step in range(10, 401, 10):
        loss = 1 + 2 / step
        row = {"step": step, "epoch": step / 20, "loss": 2 * loss, "position": loss, "shape": loss}
        norm = None if step == 10 else 1.0  # null: it was not finite
        row |= {"lr": lr, "grad_norm": norm, "skipped": 0, "clips_per_s": 100.0, "data_wait": 0.05}
        rows.append(row | {"device_idle": 0.1, "loader_queue": 3, "memory": 1.5, "eta": 1.0})
        if step % 100 == 0:
            held = {"val_loss": 1.5, "constant_loss": 2.0, "val_position": 0.7, "val_shape": 0.9}
            held |= {"val_epe": 2.0, "epe_zero": 3.0, "epe_mean": 2.5, "epe_neighbours": 1.5}
            rows.append({"step": step, **held, "constant_position": 1.0, "constant_shape": 1.0})
    lines = [json.dumps(row) for row in rows] + ['{"step": 410, "lo']  # cut off by a kill
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "pictures").mkdir()
    for step in range(100, 401, 100):
        for clip in (0, 1):
            picture = np.full((320, 640, 3), step // 2, np.uint8)
            cv2.imwrite(str(folder / "pictures" / f"step-{step:08d}-{clip}.png"), picture)
    return folder


def finetuning(folder: Path) -> Path:
    """A fine-tuning run with its evaluation."""
    folder.mkdir(parents=True)
    config = {"init": "none", "optim": {"lr": 0.01}, "out": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [{"step": s, "epoch": s / 10, "loss": 2 / s, "lr": 0.01} for s in range(1, 20)]
    rows.append({"step": 20, "val_top1": 0.5, "val_mean_class": 0.4})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {"top1": 0.5, "top5": 1.0, "mean_class": 0.5, "videos": 6, "asked": 7, "not_read": []}
    (folder / "evaluation.json").write_text(json.dumps(about))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "class_1", "score_1"])
        for video in range(6):
            label, best = CLASSES[video % 3], CLASSES[video % 2]
            writer.writerow([f"{video}.mp4", label, best, "0.5"])
    return folder


def probing(folder: Path) -> Path:
    """The results of `mme probe`."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"init": "w", "probes": ["linear"]}))
    value = {"accuracy": 0.625, "chosen": {"lr": 0.001}, "trials": []}
    rows = [
        {"weights": name, "clip": "video", "linear": value, "5-shot": [0.4, 0.6]}
        for name in ("runs/<i>mine</i>", "random weights")
    ]
    about = {"rows": rows, "training_videos": 30, "test_videos": 9, "not_read": [], "classes": 3}
    (folder / "probe.json").write_text(json.dumps(about))
    return folder


def features(path: Path, ids: list[str], labels: list[int], config: str = "store: null\n") -> Path:
    """An .npz file as `mme features` writes it: one class, one direction."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.1, (len(ids), 2, 8)).astype(np.float32)
    for video, label in enumerate(labels):
        vectors[video, :, label] += 1
    np.savez(
        path,
        features=vectors,
        label=np.array(labels),
        ids=np.array(ids),
        class_names=np.array(CLASSES),
        not_read=np.array([["x.mp4", "the file is empty"]]),
        config=np.array(config),
    )
    return path
