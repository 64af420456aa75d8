"""The plots of a grid: a picture for each measure, bars of its metrics with every seed as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.ablation.results import Number, spread
from train.ablation.tables import cells, columns
from train.recipes.ablation import PRETRAIN, AblateConfig


def draw(folder: Path, config: AblateConfig, numbers: Sequence[Number]) -> list[Path]:
    """Writes MEASURE.png of every measure into the folder; returns their paths."""
    measures = list(dict.fromkeys(number.measure for number in numbers))
    return [_draw(folder / f"{name}.png", config, numbers, name) for name in measures]


def _draw(path: Path, config: AblateConfig, numbers: Sequence[Number], measure: str) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = cells(numbers)
    keys = [key for key in columns(numbers) if key[0] == measure]
    names = [name for name in config.variants if any((name, key) in found for key in keys)]
    figure, axes = plt.subplots(
        1,
        len(keys),
        figsize=(2.4 * len(keys) + 1, 0.3 * len(names) + 1.4),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axis, key in zip(axes[0], keys):
        for place, name in enumerate(names):
            values = found.get((name, key), [])
            if not values:
                continue
            mean, deviation = spread(values)
            axis.barh(place, mean, xerr=np.nan_to_num(deviation), color="0.8", ecolor="0.3")
            axis.plot(values, [place] * len(values), "k.", markersize=4)
        axis.set_title(key[1], fontsize=9)
        axis.set_xlabel("held-out loss" if measure == PRETRAIN else "accuracy, %", fontsize=9)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    figure.suptitle(measure)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
