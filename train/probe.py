"""`mme probe`: the accuracy of probes on a frozen encoder's features, beside two baselines.

    mme probe --config probe/demo.yaml init=runs/pretrain store=out/train val_store=out/val \\
        out=runs/probe

Features are extracted once. Linear and attentive probes are trained with all learning rates and
weight decays at once. A held-out part of the training videos chooses the best pair; the probe with
this pair is trained again on all training videos. The k of kNN is chosen in the same way. So the
test videos choose nothing. The baselines are random weights, and clips that repeat one still frame.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mme_core.report.words import counted
from mme_core.terminal import plain, styled
from mme_core.weights.run_folder import PROBE
from train.data.labelled import ViewPlan
from train.data.sources import Source, Sources, open_sources
from train.engine import folder
from train.engine.distributed import PATIENCE, Ranks, connected
from train.recipes import loading
from train.recipes.messages import say
from train.recipes.scoring import ProbeConfig, check_heads
from train.recipes.weights import RANDOM, InitialEncoder, read_encoder
from train.scoring.evaluation import Passes, settled, view_plan
from train.scoring.frozen import FrozenSet, TokenFile, extract_set
from train.scoring.probe_selection import TOKEN_PROBES, Prober, check_shots


def main(argv: list[str]) -> int:
    config, keys, flags = loading.load_given(
        ProbeConfig, argv, "mme probe", __doc__, {"json": "print probe.json, and no table"}
    )
    folder.check_command(config)
    with connected(config.device, PATIENCE) as ranks:
        sources = open_sources(config.data, config.store, config.val_store)
        given = read_encoder(config.init, config.model, config.seed, keys)
        data = settled(config.data, given.recipe)
        config = dataclasses.replace(config, model=given.model, data=data)  # for config.yaml
        check_heads(config)
        for shots in config.shots:  # before the features take their time
            check_shots(sources.train.labels, shots)
        with folder.lock(Path(config.out), ranks, _warn):
            report = probe_all(config, sources, given, ranks)
        if ranks.main:
            path = Path(config.out) / PROBE
            path.write_text(json.dumps(report, indent=2))
            if "json" in flags:
                print(json.dumps(report, indent=2))
            else:
                show(report)
                print(plain(f"written to {path}"))
        return 0


def probe_all(
    config: ProbeConfig, sources: Sources, given: InitialEncoder, ranks: Ranks
) -> dict[str, Any]:
    """Runs every probe on each kind of weights and clips; returns the content of probe.json."""
    initials = {"random weights" if config.init == RANDOM else config.init: given}
    if config.baselines and config.init != RANDOM:
        initials["random weights"] = read_encoder(RANDOM, given.model, config.seed)
    if ranks.main:
        folder.write_config(config)  # before the work: is the folder writable?
    rows: list[dict[str, Any]] = []
    coverage: dict[str, Any] = {}
    for name, initial in initials.items():
        for still in (False, True) if config.baselines else (config.data.still,):
            with contextlib.ExitStack() as files:
                train, val = _frozen_pair(config, sources, initial, still, ranks, files)
                if not ranks.main:
                    continue
                row: dict[str, Any] = {"weights": name, "clip": "still frame" if still else "video"}
                prober = Prober(config, train, val, len(sources.train.class_names))
                row |= {kind: dataclasses.asdict(prober.run(kind)) for kind in config.probes}
                row |= {f"{n}-shot": prober.few_shot(n) for n in config.shots}
            rows.append(row)
            coverage = {
                "training_videos": len(train.labels),
                "test_videos": len(val.labels),
                "not_read": train.failures + val.failures,
            }
    return {"rows": rows, **coverage, "classes": len(sources.train.class_names)}


def _frozen_pair(
    config: ProbeConfig,
    sources: Sources,
    initial: InitialEncoder,
    still: bool,
    ranks: Ranks,
    files: contextlib.ExitStack,
) -> tuple[FrozenSet, FrozenSet]:
    """The features of the training and of the test videos. Their tokens go when `files` closes."""
    encoder, model, _ = initial

    def plan(source: Source) -> ViewPlan:
        return view_plan(
            source,
            config.data,
            config.view,
            model,
            stride=sources.train.stride,
            still=still,
        )

    def one(source: Source, plan: ViewPlan, name: str) -> FrozenSet:
        tokens = TokenFile(Path(config.out) / f".tokens-{name}.bin", encoder)
        if ranks.main:
            files.callback(tokens.close)
        return extract_set(
            encoder.to(ranks.device),
            source,
            plan,
            ranks,
            Passes.of(config, ranks),
            tokens=tokens if TOKEN_PROBES & set(config.probes) else None,
        )

    train, val = plan(sources.train), plan(sources.val)  # both, before the first takes its time
    return one(sources.train, train, "train"), one(sources.val, val, "val")


def _warn(text: str) -> None:
    say(f"warning: {text}")


def show(report: dict[str, Any]) -> None:
    """Prints the accuracies as a table; where stdout is no terminal, as lines with tabs."""
    rows = report["rows"]
    columns = [name for name in rows[0] if name not in ("weights", "clip")]
    title = (
        f"{report['test_videos']} test videos, {report['training_videos']} training videos, "
        f"{report['classes']} classes"
        + (f"; {counted(len(report['not_read']), 'video')} not read" if report["not_read"] else "")
    )
    console = Console()
    if not console.file.isatty():
        print(title)
        print("weights", "clip", *columns, sep="\t")
        for row in rows:
            cells = [_cell(row[name]) for name in columns]
            print(plain(row["weights"]), row["clip"], *cells, sep="\t")
        return
    table = Table(title=title)
    for name in ("weights", "clip", *columns):
        table.add_column(name)
    for row in rows:
        cells = [_cell(row[name]) for name in columns]
        table.add_row(styled(row["weights"]), row["clip"], *cells)
    console.print(table)


def _cell(value: dict[str, Any] | list[float]) -> str:
    if isinstance(value, dict):
        return f"{value['accuracy']:.1%}"
    return f"{np.mean(value):.1%} ± {np.std(value):.1%}"
