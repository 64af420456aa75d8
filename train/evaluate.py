"""`mme evaluate`: multi-view accuracy of a fine-tuned classifier.

    mme evaluate init=runs/finetune val_store=out/val out=runs/eval eval.clips=5 eval.crops=3
    torchrun --nproc-per-node=8 -m mme_core evaluate … (the same numbers)

OUT then holds evaluation.json, predictions.csv, per_class.csv and confusion.png. The clip, the
sampling and the classes are those that the classifier was trained with.
"""

from __future__ import annotations

from pathlib import Path

from mme_core.errors import UsageError
from mme_core.weights.load import build_from, read_weights
from train.data.labelled import ViewPlan
from train.data.overlap import trained_videos
from train.data.sources import (
    check_labels,
    frame_stride,
    open_source,
    relabel,
    warn_of_overlap,
)
from train.engine import folder
from train.engine.distributed import autocast_dtype, connect, disconnect
from train.recipes import loading
from train.recipes.scoring import EvaluateConfig
from train.scoring.evaluation import evaluate, trained_data, write_evaluation


def main(argv: list[str]) -> int:
    config = loading.load(EvaluateConfig, argv, "mme evaluate", __doc__)
    folder.check_command(config)
    ranks = connect(config.device)
    try:
        weights = read_weights(config.init)
        model = build_from(weights).to(ranks.device)
        root = config.data.val_root or config.data.root
        source = open_source(config.data, config.val_store, root=root, split=config.data.val_split)
        check_labels(source, "test")
        if weights.class_names is not None:
            relabel(source, weights.class_names)
        elif len(source.class_names) != weights.num_classes:
            raise UsageError(
                f"{config.init} has {weights.num_classes} classes, the videos have "
                f"{len(source.class_names)}"
            )
        trained = trained_videos(weights.recipe)
        if trained is not None:
            warn_of_overlap(trained, source.videos)
        sampling, stride = trained_data(weights.recipe, config.data)
        plan = ViewPlan(
            sampling=sampling,
            stride=frame_stride(stride, source),
            frames=weights.frames,
            size=weights.image_size,
            clips=config.eval.clips,
            crops=config.eval.crops,
            still=config.data.still,
        )
        if ranks.main:
            folder.write_config(
                config
            )  # before the work, so that a folder nobody may write is found
        result = evaluate(
            model,
            source,
            plan,
            ranks,
            batch=config.eval.batch,
            workers=config.data.workers,
            dtype=autocast_dtype(config.precision, ranks.device),
        )
        if ranks.main:
            write_evaluation(Path(config.out), result, source)
            print(result)
        return 0
    finally:
        disconnect()
