"""`mme predict`: the most likely classes of video files, with scores and a picture.

mme predict VIDEO.mp4 --weights runs/finetune -o prediction.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mme_core.clips.views import test_views, to_model_input
from mme_core.datasets import VideoItem
from mme_core.errors import StoreError, UsageError, VideoError
from mme_core.model import Classifier
from mme_core.parser import CommandParser, disk_path
from mme_core.terminal import plain
from mme_core.weights.load import Weights
from mme_core.weights.save import writing
from train.data.sources import FileSource
from train.engine.distributed import connect
from train.engine.folder import check_suffix
from train.recipes.classification import LabelledDataConfig, ViewConfig
from train.recipes.shared import DEVICES
from train.recipes.weights import architecture, read_classifier
from train.scoring.evaluation import settled, view_plan
from train.scoring.metrics import TOP, as_label, rank

SHOWN = 8  # frames of the picture
PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf"}
)


def predict(
    model: Classifier, weights: Weights, video: str, clips: int, crops: int
) -> tuple[np.ndarray, np.ndarray]:
    """(scores float64 [C], frames uint8 [T, H, W, 3] of the middle clip) of a file.

    Raises VideoError where it cannot be read.
    """
    source = FileSource([VideoItem(_name(video), video)], weights.class_names or ())
    plan = view_plan(
        source,
        settled(LabelledDataConfig(), weights.recipe),
        ViewConfig(clips=clips, crops=crops),
        architecture(weights),
    )
    frames = source.read(0, plan.indices)
    views = torch.from_numpy(test_views(list(frames), plan.size, plan.crops))
    device = next(model.parameters()).device
    with torch.inference_mode():
        scores = model(to_model_input(views.to(device))).double().softmax(1).mean(0)
    return scores.cpu().numpy(), frames[len(frames) // 2]


def _name(video: str | Path) -> str:
    """The last part of a path or URL."""
    return str(video).rstrip("/").rpartition("/")[2]


def draw(
    path: Path, video: str | Path, frames_THW3: np.ndarray, best: list[tuple[str, float]]
) -> None:
    """The clip's frames above the bars of its best classes, as a PNG."""
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(frames_THW3) - 1, min(SHOWN, len(frames_THW3))).round().astype(int)
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.3))  # the stub allows one alone
    top, bottom = halves
    top.suptitle(as_label(_name(video), 100))
    for axes, index in zip(top.subplots(1, len(chosen)), chosen):
        axes.imshow(frames_THW3[index])
        axes.set_axis_off()
    axes = bottom.subplots()
    names, scores = zip(*reversed(best))
    bars = axes.barh(range(len(names)), scores)
    axes.set_yticks(range(len(names)), [as_label(name, 60) for name in names])
    axes.bar_label(bars, [f"{score:.1%}" for score in scores], padding=3)
    axes.set_xlim(0, 1)
    axes.set_xlabel("score")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def pictures(videos: Sequence[str | Path], output: Path | None) -> list[Path | None]:
    """The path of each video's picture.

    Raises UsageError if two would be the same file, or if a folder would have a picture's name.
    """
    if output is None:
        return [None] * len(videos)
    if len(videos) == 1:
        check_suffix(output, ".png")
        return [output]
    if output.suffix.lower() in PICTURES and not output.is_dir():
        raise UsageError(
            f"-o {output}: names a picture, and {len(videos)} videos have a picture each: name a "
            "folder"
        )
    names = [f"{Path(_name(video)).stem}.png" for video in videos]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"-o {output}: two pictures would be {min(twice)}; run these videos one by one"
        )
    return [output / name for name in names]


def main(argv: list[str]) -> int:
    parser = CommandParser("predict", __doc__)
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="a file or a URL")
    weights_help = "a fine-tuned run's folder, or a file"
    add("--weights", metavar="WEIGHTS", required=True, help=weights_help)
    output_help = "picture.png, or a folder for several videos (default: no picture)"
    add("-o", "--output", metavar="FILE", type=disk_path, help=output_help)
    add("--clips", type=int, default=5, metavar="N", help="clips of each video")
    add("--crops", type=int, default=3, metavar="N", help="crops of each clip")
    add("--device", default="auto", choices=DEVICES, help="where to compute")
    # The name of a file may begin with a dash, as in -id.mp4; it is not an option.
    argv = [f"./{word}" if word[:1] == "-" and Path(word).is_file() else word for word in argv]
    arguments = parser.parse_args(argv)
    if arguments.clips < 1 or arguments.crops < 1:
        raise UsageError("--clips and --crops must be at least 1")
    outputs = pictures(arguments.videos, arguments.output)
    model, weights = read_classifier(arguments.weights)
    model = model.to(connect(arguments.device).device)
    names = weights.class_names or [str(number) for number in range(model.head.out_features)]
    failed = []
    for video, picture in zip(arguments.videos, outputs):
        try:
            scores, frames = predict(model, weights, video, arguments.clips, arguments.crops)
        except (VideoError, StoreError, OSError) as error:
            failed.append(f"{video}: {error}")
            continue
        order = rank(scores[None])[0][:TOP]
        best = [(names[number], float(scores[number])) for number in order]
        print(plain(video))
        for name, score in best:
            print(f"  {score:6.1%}  {plain(name)}")
        if picture:
            draw(picture, video, frames, best)
    if failed:
        raise VideoError(
            f"{len(failed)} of {len(outputs)} videos cannot be used: {'; '.join(failed)}"
        )
    return 0
