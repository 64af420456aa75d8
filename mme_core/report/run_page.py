"""The page on one or more runs: curves, speed, pictures, probes, confusion, recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mme_core.report.html import Html, details, figure, grid, join, page, section, table, tag
from mme_core.report.pictures import still
from mme_core.report.plots import Curve, colour, confusion, curves, number, share_bar
from mme_core.report.run_files import Run, confusion_of
from mme_core.report.words import counted, setting

_EPOCHS, _OTHERS = 4, 2  # pictures of the first clip, by step; further clips at the last step
_PAIRS = 12  # of confused classes
# Numbers of the logged steps that have their own place; the rest is plotted under its name.
_TITLES = {
    "clips_per_s": ("Clips a second", 1.0),
    "device_idle": ("Time the device was idle, %", 100.0),
    "data_wait": ("Time spent waiting for data, %", 100.0),
    "mfu": ("Use of the device's peak (MFU), %", 100.0),
    "ready": ("Batches ready when the step asks", 1.0),
    "memory": ("Peak memory, GB", 1.0),
}
_PLAIN = ("step", "epoch", "eta", "skipped", "bad", "unreadable")
_HELD_OUT = ("val_", "constant_", "final_", "epe_")
# End-point errors: of the model, and of guesses without one.
_ERRORS = {
    "val_epe": "the model",
    "epe_zero": "no motion",
    "epe_mean": "mean of the visible patches",
    "epe_neighbours": "nearest visible patches",
}


def run_page(runs: Sequence[Run]) -> str:
    """The page as HTML; the runs are compared where they have the same numbers."""
    parts = [_summary(runs), _curves(runs), _speed(runs)]
    parts += [_panels(run, runs) for run in runs if run.pictures]
    parts += [_probe(run, runs) for run in runs if run.probe]
    parts += [_confusion(run, runs) for run in runs if run.predictions]
    parts.append(_recipes(runs))
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs"
    where = ", ".join(str(run.path) for run in runs)
    return page(title, where, [part for part in parts if part])


def _titled(words: str, run: Run, runs: Sequence[Run]) -> str:
    return words if len(runs) == 1 else f"{words}: {run.name}"


def _summary(runs: Sequence[Run]) -> Html:
    rows: dict[str, dict[str, str]] = {}

    def say(name: str, run: Run, value: object) -> None:
        rows.setdefault(name, {})[run.name] = str(value)

    for run in runs:
        say("kind", run, run.kind)
        shown = {"init": "started from", "model.size": "model", "seed": "seed"}
        if run.kind == "probe":
            del shown["model.size"]  # it is that of the weights, whatever the recipe says
        for key, name in shown.items():
            if run.config.get(key) is not None:
                say(name, run, run.config[key])
        if run.rows:
            say("steps", run, f"{run.rows[-1]['step']:,}")
        for name, value in _results(run).items():
            say(name, run, value)
        for key, name in (("skipped", "skipped steps"), ("bad", "unreadable clips")):
            values = run.series(key)[1]
            if values and values[-1]:
                say(name, run, f"{values[-1]:.0f}")
    body = [(name, *(values.get(run.name, "–") for run in runs)) for name, values in rows.items()]
    return section("Summary", table(("", *(run.name for run in runs)), body))


def _results(run: Run) -> dict[str, str]:
    """The last figures of a run, by name."""
    found = {}
    for content in _contents(run):
        held, constant = (run.series(f"{kind}_{content}")[1] for kind in ("val", "constant"))
        share = f" ({held[-1] / constant[-1]:.1%})" if constant[-1] else ""
        found[f"held-out {content}, of the best constant"] = (
            f"{number(held[-1])} of {number(constant[-1])}{share}"
        )
    for key, name in (("loss", "last training loss"), ("knn", "kNN accuracy")):
        values = run.series(key)[1]
        if values:
            found[name] = f"{values[-1]:.1%}" if key == "knn" else number(values[-1])
    if run.evaluation:
        for key, name in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "mean class")):
            found[f"test accuracy, {name}"] = f"{run.evaluation[key]:.1%}"
        read = f"{run.evaluation['videos']:,} of {run.evaluation['asked']:,}"
        found["test videos read"] = read
    return found


def _contents(run: Run) -> list[str]:
    """What a pre-training run predicts: the names with a held-out loss and a constant's loss."""
    keys = run.numbers()
    named = [key.removeprefix("val_") for key in keys if key.startswith("val_")]
    return [name for name in named if f"constant_{name}" in keys and name != "loss"]


def _lines(runs: Sequence[Run], key: str, scale: float = 1.0, suffix: str = "") -> list[Curve]:
    found = []
    for place, run in enumerate(runs):
        steps, values = run.series(key)
        if steps:
            label = f"{run.name}{suffix}" if len(runs) > 1 else suffix.strip() or "this run"
            found.append(Curve(label, steps, [scale * v for v in values], colour(place)))
    return found


def _curves(runs: Sequence[Run]) -> Html | None:
    plots = []
    if lines := _lines(runs, "loss"):
        plots.append(curves("Training loss", lines))
    for content in dict.fromkeys(name for run in runs for name in _contents(run)):
        plots.append(_against_constant(runs, content))
    if lines := _end_point_errors(runs):
        plots.append(curves("End-point error, held out, px", lines, zero=True))
    for key, title in (
        ("knn", "kNN accuracy, held out, %"),
        ("val_top1", "Top-1 accuracy, one view, held out, %"),
        ("val_mean_class", "Mean class accuracy, held out, %"),
    ):
        if lines := _lines(runs, key, 100):
            plots.append(curves(title, lines))
    for key, title in (("lr", "Learning rate"), ("grad_norm", "Norm of the gradient")):
        if lines := _lines(runs, key):
            plots.append(curves(title, lines, zero=key == "lr"))
    plots += [curves(key, _lines(runs, key)) for key in _others(runs)]
    if not plots:
        return None
    note = "Over the optimiser's steps."
    if any(map(_contents, runs)):
        note += " The dashed line is the loss of the best constant: a model that ignores its input "
        note += "cannot be below it."
    return section("Curves", grid(plots), note=note)


def _against_constant(runs: Sequence[Run], content: str) -> Html:
    lines = _lines(runs, f"val_{content}", suffix=" held out")
    for place, run in enumerate(runs):
        steps, values = run.series(f"constant_{content}")
        if steps:
            label = f"{run.name} constant" if len(runs) > 1 else "best constant"
            lines.append(Curve(label, steps, values, colour(place), dashed=True))
    if len(runs) == 1 and runs[0].series(content)[0]:
        lines.append(Curve("training", *runs[0].series(content), colour(1)))
    return curves(f"Loss of {content}", lines)


def _end_point_errors(runs: Sequence[Run]) -> list[Curve]:
    """The model's error over the steps; of a single run also those of guesses without a model."""
    if len(runs) > 1:
        return _lines(runs, "val_epe")
    found = [(label, runs[0].series(key)) for key, label in _ERRORS.items()]
    return [Curve(label, *line, colour(i)) for i, (label, line) in enumerate(found) if line[0]]


def _others(runs: Sequence[Run]) -> list[str]:
    """Numbers without a title, such as the loss of a content that no held-out videos tell of."""
    known = {"loss", "lr", "grad_norm", "knn", *_PLAIN, *_TITLES}
    known |= {name for run in runs for name in _contents(run)}
    keys = dict.fromkeys(key for run in runs for key in run.numbers())
    return [key for key in keys if key not in known and not key.startswith(_HELD_OUT)]


def _speed(runs: Sequence[Run]) -> Html | None:
    plots = [
        curves(title, lines, zero=True)
        for key, (title, scale) in _TITLES.items()
        if (lines := _lines(runs, key, scale))
    ]
    return section("Speed and load", grid(plots)) if plots else None


def _panels(run: Run, runs: Sequence[Run]) -> Html:
    """One clip over the steps, and other clips at the last step."""
    first, *others = sorted(run.pictures)
    steps = run.pictures[first]
    places = np.linspace(0, len(steps) - 1, min(_EPOCHS, len(steps))).round().astype(int)
    chosen = [steps[place] for place in places]
    chosen += [run.pictures[clip][-1] for clip in others[:_OTHERS]]
    figures = []
    for step, path in chosen:
        image = cv2.imread(str(path))
        if image is not None:
            picture = still(image[..., ::-1], f"step {step}", width=1000, quality=70)
            figures.append(figure(tag("div", picture, class_="scroll wide"), f"step {step:,}"))
    return section(
        _titled("Predicted trajectories", run, runs),
        grid(figures, 500),
        note="From top to bottom: what the model sees; where the hidden points go; where the model "
        "says they go; the clip.",
    )


def _probe(run: Run, runs: Sequence[Run]) -> Html:
    assert run.probe is not None
    probe = run.probe
    kinds = [key for key in probe["rows"][0] if key not in ("weights", "clip")]
    rows = [
        (row["weights"], row["clip"], *(_accuracy(row[kind]) for kind in kinds))
        for row in probe["rows"]
    ]
    best = [
        (kind, ", ".join(f"{key}={value}" for key, value in row[kind]["chosen"].items()))
        for row in probe["rows"][:1]
        for kind in kinds
        if isinstance(row[kind], dict) and isinstance(row[kind].get("chosen"), dict)
    ]
    lost = probe.get("not_read", [])
    note = (
        f"{counted(probe['test_videos'], 'test video')}, "
        f"{counted(probe['training_videos'], 'training video')}, {probe['classes']} classes "
        f"(chance {1 / probe['classes']:.1%})" + (f"; {len(lost)} not read" if lost else "")
    )
    return section(
        _titled("Probes", run, runs),
        table(("weights", "clip", *kinds), rows),
        details("Chosen settings", table(("probe", "chosen"), best)) if best else "",
        note=note,
    )


def _accuracy(value: Mapping[str, Any] | Sequence[float]) -> Html:
    if isinstance(value, Mapping):
        return share_bar(value["accuracy"])
    spread = f" ± {np.std(value):.1%}"
    return join([share_bar(float(np.mean(value))), spread])


def _confusion(run: Run, runs: Sequence[Run]) -> Html:
    counts, names = confusion_of(run.predictions)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [
        (names[true], names[best], str(wrong[true, best]))
        for true, best in zip(*np.unravel_index(order, wrong.shape))
        if wrong[true, best]
    ]
    share = np.diag(counts) / np.maximum(counts.sum(1), 1)
    per_class = [
        (names[i], share_bar(float(share[i])), f"{counts[i].sum():,}")
        for i in np.argsort(share, kind="stable")
        if counts[i].sum()
    ]
    matrix = figure(confusion(counts, names), "rows: true class; columns: predicted class")
    confused = tag(
        "div", tag("h3", "Most confused"), table(("true", "predicted", "videos"), pairs, 1)
    )
    return section(
        _titled("Confusion", run, runs),
        grid([matrix, confused if pairs else ""], 420),
        details("Accuracy of each class", table(("class", "accuracy", "videos"), per_class, 1)),
    )


def _recipes(runs: Sequence[Run]) -> Html:
    parts: list[Html] = []
    if len(runs) > 1:
        keys = dict.fromkeys(key for run in runs for key in run.config)
        same_kind = len({run.kind for run in runs}) == 1
        differing = [
            (key, *(setting(run.config.get(key, "–")) for run in runs))
            for key in keys
            if key != "out"
            and len({str(run.config.get(key)) for run in runs}) > 1
            and (same_kind or all(key in run.config for run in runs))
        ]
        parts += [
            tag("h3", "Keys that differ"),
            table(("key", *(run.name for run in runs)), differing),
        ]
    for run in runs:
        if run.changed:
            title = f"{run.name}: what the recipe sets"
            parts += [tag("h3", title), table(("key", "value", "default"), run.changed)]
        if run.parent:
            differing = [
                (key, setting(value), setting(run.parent[key]))
                for key, value in run.config.items()
                if key in run.parent and key not in ("out", "init") and value != run.parent[key]
            ]
            title = f"{run.name}: what differs from the run it started from"
            head = ("key", "here", "there")
            parts += [tag("h3", title), tag("p", run.config["init"], class_="note")]
            parts.append(table(head, differing))
        every = table(("key", "value"), [(k, setting(v)) for k, v in run.config.items()])
        parts.append(details(f"All keys of {run.name}", every))
    return section("Recipe" if len(runs) == 1 else "Recipes", *parts)
