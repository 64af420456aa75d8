"""Pictures of predicted trajectories beside the true ones: the paper's Figure 4."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mme_core.clips.contents import build_targets
from mme_core.clips.settings import TargetSettings
from mme_core.model import PretrainingModel
from mme_core.viz import figure4
from train.objective.reconstruction import Objective
from train.scoring.pixels import to_pixels


@torch.no_grad()
def draw_panels(
    model: PretrainingModel,
    objective: Objective,
    batch: Mapping[str, Tensor],
    names: Sequence[str],
    folder: Path,
    step: int,
) -> list[Path]:
    """Draws Figure 4 for the first clips of `batch`, one clip for each name.

    Clip I goes to FOLDER/step-NNNNNNNN-I.png; returns these paths. The batch is on the device.
    Raises OSError where a picture cannot be written.

    The model predicts normalised trajectories. To draw them in pixels, the true mean and deviation
    of each masked patch are used, and the caption says so.
    """
    model.eval()
    question = objective.ask(batch)
    predicted = objective.predict(model, question)["position"].float()
    model.train()
    raw = dataclasses.replace(objective.settings, norm="none")
    true, _ = build_targets(batch, objective.spec, raw, ["position"])["position"]
    every = torch.zeros_like(true)
    every.scatter_(1, question.hidden[..., None].expand_as(predicted), predicted)
    drawn = to_pixels(every, true, objective.settings, objective.spec.points)

    grid, points = batch["valid"].shape, objective.spec.points  # [B, n, h, w]
    kept = objective.settings.trajectories(points)

    def per_point(values_BND: Tensor) -> np.ndarray:
        """[B, n, h, w, K, L, 2]; a merged trajectory is drawn at every point of its patch."""
        values = values_BND.reshape(*grid, kept, -1, 2)
        return values.expand(*grid, points, -1, 2).cpu().numpy()

    true_points, drawn_points = per_point(true), per_point(drawn)
    valid = np.all(per_point(question.targets["position"][1]), axis=(-2, -1))
    frames = batch["frames"].cpu().numpy()
    mask = batch["mask"].reshape(grid).cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, name in enumerate(names):
        caption = f"{name}, step {step}; {_note(objective.settings)}"
        picture = figure4(
            frames[i],
            mask[i],
            true_points[i],
            drawn_points[i],
            objective.spec,
            caption,
            valid=valid[i],
        )
        paths.append(folder / f"step-{step:08d}-{i}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def _note(settings: TargetSettings) -> str:
    """The part of the caption that says how the predictions became pixels."""
    uses = {
        "patch": "mean and deviation of each masked patch",
        "step": "mean and deviation of each step of a masked patch",
        "length": "length of each masked trajectory",
    }
    truth = uses.get(settings.norm)
    used = f"scaled by the true {truth}" if truth else "not scaled by true values"
    camera = ", camera motion subtracted" if settings.camera else ""
    return f"predictions in pixels: {used}{camera}"
