"""A grid of two variants and two seeds, run by the commands on stores of a few small videos."""

import csv
import json
import shlex
import sys
import time

import pytest
import torch
import yaml

from mme_core.errors import UsageError
from train import ablate
from train.ablation.cells import Cell, Chain, _text, all_chains, tuning_chains
from train.ablation.results import Number, choose_rates, spread
from train.ablation.runner import Runner, is_done, slots
from train.ablation.tables import markdown
from train.engine import folder
from train.engine.distributed import Ranks
from train.recipes import loading
from train.recipes.ablation import AblateConfig, check_grid
from train.recipes.commands import SCHEMAS
from train.recipes.loading import RECIPES, merge, read_yaml

BASES = ("generated.yaml", "real.yaml", "real-cpu.yaml", "mixed-cpu.yaml")
PROBE = {"command": "probe", "probes": ["linear", "knn"], "lrs": [1e-2], "weight_decays": [0.1]}
PROBE |= {"epochs": 2, "choice_share": 0.5, "neighbours": [1], "baselines": False}
PROBE |= {"data.workers": 0, "data.dataset": "folder", "data.root": "videos"}
SHORT = {"optim.steps": 2, "checkpoint.every": 1, "eval.panels": 0}
GRID = {
    "out": "out",
    "seeds": [0, 1],
    "device": "cpu",
    "recipes": ["tiny.yaml"],
    "pretrain": SHORT | {"store": "store"},
    "variants": {"random": None, "pixel": {"loss": {"contents": ["pixel"]}}},
    "measures": {"small": PROBE},
}


def config(**changes):
    made = merge(AblateConfig, [("", GRID | changes)])
    check_grid(made)
    return made


@pytest.fixture
def finished(monkeypatch):
    """Cells whose probes hold the given accuracies, without running anything."""

    def write(cell, choice, test):
        cell.folder.mkdir(parents=True, exist_ok=True)
        row = {"weights": "w", "clip": "video", "linear": {"accuracy": test, "trials": []}}
        row["linear"]["trials"] = [{"choice": choice, "test": test}]
        if cell.words[0] == "probe":
            (cell.folder / "probe.json").write_text(json.dumps({"rows": [row]}))
        (cell.folder / "cell.json").write_text(
            json.dumps({"words": cell.words, "pretrain": cell.pretrain})
        )

    return write


# planning


def test_variants_differ_in_their_own_keys_alone():
    (pixel,) = [c for c in all_chains(config(), {}) if (c.variant, c.seed) == ("pixel", 1)]
    command, *words = pixel.cells[0].words
    assert command == "pretrain"
    assert {"--config=tiny.yaml", "optim.steps=2", "seed=1"} <= set(words)
    assert 'loss.contents=["pixel"]' in words and "out=out/pixel/seed1/pretrain" in words
    assert "init=out/pixel/seed1/pretrain" in pixel.cells[1].words


@pytest.mark.parametrize("value", ["a", "007", "run #1", "@a", "[x", "a: b: c", "${oc.env:A}"])
def test_a_value_reaches_its_cell_as_it_stands(value):
    word = f"measure.store={_text(value)}"
    assert yaml.safe_load(word.partition("=")[2]) == value


def test_random_weights_are_measured_without_a_run():
    chain = all_chains(config(), {})[0]
    assert [cell.words[0] for cell in chain.cells] == ["probe"]
    assert "init=none" in chain.cells[0].words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {}}, "variants is empty"),
        ({"pretrain": {"seed": 3}}, "pretrain.seed: the grid sets"),
        ({"measures": {"x": {"command": "train"}}}, "measures.x.command must be one of"),
        ({"variants": {"a/b": None}}, "contain / or be"),
        ({"tune": {"lrs": [1.0], "measure": "other"}}, "the probes are small"),
        ({"tune": {"lrs": [1e-3, 0.001], "measure": "small"}}, "names a learning rate twice"),
    ],
)
def test_wrong_grid_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        config(**changes)


def test_gpus_share_jobs_and_cores(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = slots("auto", 2, gpus=2, cores=16)
    assert [slot.gpu for slot in found] == ["0", "1", "0", "1"] and found[0].threads == 4
    assert slots("cpu", 3, gpus=0, cores=2) == [slots("cpu", 1, 0, 1)[0]] * 3


# the learning rate


def test_rate_is_chosen_on_training_videos_of_first_seed(tmp_path, finished):
    grid = config(out=str(tmp_path), tune={"lrs": [0.1, 0.2], "measure": "small"})
    chains = tuning_chains(grid)
    assert [(c.variant, c.seed, c.lr) for c in chains] == [("pixel", 0, 0.1), ("pixel", 0, 0.2)]
    for chain, choice, test in zip(chains, (0.8, 0.4), (0.1, 0.9)):
        for cell in chain.cells:
            finished(cell, choice, test)
    rates = choose_rates(grid, chains)
    assert rates == {"pixel": 0.1}
    first, second = (c for c in all_chains(grid, rates) if c.variant == "pixel")
    assert all(map(is_done, first.cells)), "the first seed's run is not repeated"
    assert "optim.lr=0.1" in second.cells[0].words


# tables


def test_table_has_mean_spread_and_marks_unequal_variants():
    grid = config(variants={"pixel": {"loss.contents": ["pixel"]}, "more": {"optim.steps": 9}})
    values = {"pixel": (10, 14), "more": (20, 20)}
    numbers = [
        Number(name, seed, None, "small", "linear", value, "")
        for name, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    text = markdown(grid, numbers, {"pixel": 0.001})
    assert "| pixel | 12.0 ± 2.8 |" in text and "| more \\* | 20.0 ± 0.0 |" in text
    assert "`loss.contents=['pixel']`; learning rate 0.001" in text


def test_each_measure_has_a_table_of_its_own():
    grid = config(variants={"pixel": {}})
    numbers = [Number("pixel", 0, None, name, "linear", 10, "") for name in ("small", "large")]
    lines = markdown(grid, numbers, {}).splitlines()
    assert lines.count("| variant | linear |") == 2
    assert lines.index("**small**") < lines.index("**large**")


def test_spread_is_the_sample_deviation():
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))


# running


def test_failed_cell_ends_its_chain_alone(tmp_path):
    bad = Chain("bad", 0, None, (Cell(tmp_path / "1", ("nonsense",)), Cell(tmp_path / "2", ())))
    good = Chain("good", 0, None, (Cell(tmp_path / "3", ("--help",)),))
    runner = Runner(slots("cpu", 2, 0, 2), print)
    assert runner.run([bad, good], stop=())
    assert runner.failed == [bad.cells[0]] and is_done(good.cells[0])
    assert "no command 'nonsense'" in (tmp_path / "1" / "cell.log").read_text()
    assert not (tmp_path / "2").exists()


def test_stop_lets_running_cells_save_and_starts_no_more(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\ntrap 'echo saved; exit 75' TERM\necho began\nsleep 60 & wait\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    cells = tuple(Cell(tmp_path / name, (name,)) for name in "ab")

    class Stop:
        def __bool__(self):
            log = tmp_path / "a" / "cell.log"
            return log.exists() and "began" in log.read_text()

    assert not Runner(slots("cpu", 1, 0, 1), print).run([Chain("v", 0, None, cells)], Stop())
    assert (tmp_path / "a" / "cell.log").read_text() == "mme a\nbegan\nsaved\n"
    assert not is_done(cells[0]) and not (tmp_path / "b").exists()


def test_second_ctrl_c_ends_cells_that_do_not_stop(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\ntrap '' TERM\necho began\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    log, asked = tmp_path / "a" / "cell.log", []

    class Stop:
        def __bool__(self):
            if asked:
                raise KeyboardInterrupt
            asked.extend([True] if log.exists() and "began" in log.read_text() else [])
            return bool(asked)

    chain = Chain("v", 0, None, (Cell(tmp_path / "a", ("a",)),))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Runner(slots("cpu", 1, 0, 1), print).run([chain], Stop())
    assert time.monotonic() - began < 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": {"a": {}, "b": {"mask.kid": "cube"}}},
            r"variants\.b: .*mask\.kid is not a",
        ),
        ({"measures": {"x": PROBE | {"epochs": 0}}}, r"`mme probe` .*seed0/x: epochs=0 must be"),
        (
            {"pretrain": SHORT},
            r"`mme pretrain` .*: pretrain\.store is not set: add pretrain\.store=… to",
        ),
        (
            {"measures": {"x": PROBE | {"data.dataset": None}}},
            r"`mme probe` .*x: give .* measures\.x\.store=… \(and measures\.x\.val_store=…\) or as "
            r"measures\.x\.data\.dataset=… measures\.x\.data\.root=…$",
        ),
        (
            {"measures": {"x": PROBE | {"data.dataset": None, "store": "s"}}},
            r"`mme probe` .*x: measures\.x\.val_store is not set",
        ),
    ],
)
def test_wrong_keys_of_a_cell_end_the_grid_at_its_start(tmp_path, changes, message):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID | changes))
    with pytest.raises(UsageError, match=message):
        ablate.main([str(tmp_path / "grid.yaml"), f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("store=s", r"; pretrain\.store or measures\.NAME\.store sets it"),
        ("mask.ratio=1", r"; pretrain\.mask\.ratio sets it"),
        ("view.clips=2", r"; measures\.NAME\.view\.clips sets it"),
        ("init=none", "; the grid sets init itself"),
        ("split=val", "; split belongs to mme features"),
    ],
)
def test_a_key_of_a_cell_is_told_its_place_in_the_grid(word, end):
    with pytest.raises(UsageError, match=f"is not a key of this recipe; the nearest is .*{end}$"):
        ablate.main(["--dry-run", "out=o", word])


def test_the_example_of_the_help_is_a_grid_with_all_its_keys(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = ablate.__doc__.split("\n\n")[1].partition("    mme ablate GRID")[0]
    assert ablate.main([*shlex.split(example.replace("\\\n", ""))[2:], "--dry-run"]) == 0
    assert "mme finetune " in capsys.readouterr().out


def test_another_order_of_keys_is_the_same_cell(tmp_path, finished):
    measure = {"small": dict(reversed(PROBE.items()))}
    finished(all_chains(config(out=str(tmp_path)), {})[0].cells[0], 0, 0)
    assert is_done(all_chains(config(out=str(tmp_path), measures=measure), {})[0].cells[0])


def test_folder_of_another_grid_is_refused(tmp_path, finished):
    cell = all_chains(config(out=str(tmp_path)), {})[0].cells[0]
    finished(cell, 0, 0)
    changed = config(out=str(tmp_path), measures={"small": PROBE | {"epochs": 3}})
    with pytest.raises(UsageError, match="epochs=2, epochs=3"):
        is_done(all_chains(changed, {})[0].cells[0])


def test_second_grid_in_a_folder_is_refused(tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(yaml.safe_dump(GRID, sort_keys=False))
    with (
        folder.lock(out, Ranks(0, 1, torch.device("cpu")), pytest.fail),
        pytest.raises(UsageError, match="is in use by another run"),
    ):
        ablate.main([str(grid), f"out={out}"])


def test_grid_runs_ends_in_a_table_and_repeats_nothing(
    demo_store, held_out_store, labelled_set, tmp_path, capsys
):
    stores = {"store": str(demo_store), "val_store": str(held_out_store)}
    labelled = {"data.root": str(labelled_set)}
    words = GRID | {
        "out": str(tmp_path / "out"),
        "pretrain": SHORT | stores,
        "measures": {"small": PROBE | labelled},
    }
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(words))
    assert ablate.main([str(grid), "seeds=[0]"]) == 0
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "runs.csv").open()))
    assert {(row["variant"], row["metric"]) for row in rows} == {
        ("random", "linear"),
        ("random", "knn"),
        ("pixel", "linear"),
        ("pixel", "knn"),
        ("pixel", "pixel / constant"),
    }
    assert "| pixel |" in (out / "table.md").read_text() and (out / "small.png").exists()
    before = (out / "pixel/seed0/small/probe.json").stat().st_mtime_ns
    capsys.readouterr()
    assert ablate.main([str(grid), "seeds=[0]"]) == 0
    assert "done," not in capsys.readouterr().err
    assert (out / "pixel/seed0/small/probe.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("table", sorted(path.name for path in (RECIPES / "ablate").glob("*.yaml")))
def test_shipped_tables_plan_valid_pretraining(table):
    """Each table on the base for generated videos, and each base with Figure 3's variants."""
    names = ["generated.yaml", "figure3.yaml"] if table in BASES else ["generated.yaml", table]
    layers = [("", read_yaml(f"ablate/{name}")) for name in names]
    if table in BASES:
        layers[0] = ("", read_yaml(f"ablate/{table}"))
    places = {"out": "o", "pretrain": {"store": "s"}, "tune": {"lrs": []}}
    grid = merge(AblateConfig, [*layers, ("", places)])
    check_grid(grid)
    for chain in all_chains(grid, {}):
        for cell in chain.cells:
            command, *words = cell.words
            schema = SCHEMAS[command]
            loading.load(schema, words, "", "")


def test_grids_are_named_with_or_without_their_option(tmp_path, capsys):
    for name, part in (("a.yaml", ("variants",)), ("b.yaml", GRID.keys() - {"variants"})):
        (tmp_path / name).write_text(yaml.safe_dump({key: GRID[key] for key in part}))
    a, b = (str(tmp_path / name) for name in ("a.yaml", "b.yaml"))
    printed = set()
    for words in ([a, b], ["--config", a, "--config", b], [f"--config={a}", b]):
        assert ablate.main([*words, "--dry-run", "out=grid.yaml"]) == 0
        printed.add(capsys.readouterr().out)
    assert len(printed) == 1 and "out=grid.yaml/" in printed.pop()


def test_a_dry_run_prints_commands_that_a_shell_can_read(tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    assert ablate.main([str(tmp_path / "grid.yaml"), "--dry-run"]) == 0
    printed = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    assert printed == [list(c.words) for chain in all_chains(config(), {}) for c in chain.cells]


def test_a_measure_of_another_pretraining_is_refused(tmp_path, finished):
    """Removing the run alone must not leave its old measures beside the new run."""
    _, measure = all_chains(config(out=str(tmp_path)), {})[1].cells
    finished(measure, 0, 0)
    changed = config(out=str(tmp_path), pretrain=SHORT | {"optim.steps": 3})
    with pytest.raises(UsageError, match=f"optim.steps=3.* or remove {measure.folder.parent}$"):
        is_done(all_chains(changed, {})[1].cells[1])
