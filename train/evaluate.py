"""`mme evaluate`: multi-view accuracy of a fine-tuned classifier.

    mme evaluate init=runs/finetune val_store=out/val out=runs/eval eval.clips=5 eval.crops=3
    torchrun --nproc-per-node=8 --no-python mme evaluate …    (gives the same numbers)

OUT then holds evaluation.json, predictions.csv, per_class.csv and confusion.png. Clip length, image
size, sampling and classes are those of the classifier's training.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mme_core.errors import UsageError
from mme_core.terminal import plain
from train.data.overlap import trained_videos
from train.data.sources import check_labels, open_source, relabel, warn_of_overlap
from train.engine import folder
from train.engine.distributed import PATIENCE, connected
from train.recipes import loading
from train.recipes.scoring import EvaluateConfig
from train.recipes.weights import architecture, read_classifier
from train.scoring.evaluation import Passes, evaluate, settled, view_plan, write_evaluation


def main(argv: list[str]) -> int:
    config, _, flags = loading.load_given(
        EvaluateConfig,
        argv,
        "mme evaluate",
        __doc__,
        {"json": "print evaluation.json, and no text"},
    )
    folder.check_command(config)
    with connected(config.device, PATIENCE) as ranks:
        model, weights = read_classifier(config.init)
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
        config = replace(config, data=settled(config.data, weights.recipe))  # for config.yaml
        plan = view_plan(source, config.data, config.eval, architecture(weights))
        if ranks.main:
            folder.write_config(config)  # before the work: is the folder writable?
        passes = Passes.of(config, ranks)
        result = evaluate(model.to(ranks.device), source, plan, ranks, passes)
        if ranks.main:
            write_evaluation(Path(config.out), result, source)
            if "json" in flags:
                print(json.dumps(result.to_dict(), indent=2))
            else:
                print(result)
                print(plain(f"written to {config.out}"))
        return 0
