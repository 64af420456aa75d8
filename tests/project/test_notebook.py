"""The notebooks run from the first cell to the last, and are committed with small outputs."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = [
    path
    for path in sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
    if not path.stem.endswith("_run")
]


def read(name):
    path = next(path for path in NOTEBOOKS if path.stem == name)
    return nbformat.read(path, as_version=4)


def execute(notebook):
    place = {"metadata": {"path": NOTEBOOKS[0].parent}}
    NotebookClient(notebook, timeout=300, resources=place).execute()


def run(name):
    """The executed notebook's text and number of pictures; nothing goes to stderr."""
    notebook = read(name)
    execute(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    return "".join(output.get("text", "") for output in outputs), len(pictures)


@pytest.fixture(scope="module")
def other_store(demo_store, tmp_path_factory):
    """The videos of `demo_store` again, with another flow."""
    from stores import write_store

    from mme_core.spec import TargetSpec

    paths = [json.loads(line)["path"] for line in (demo_store / "ledger.jsonl").open()]
    spec = TargetSpec(short_side=64, long_side=80, flow="farneback")
    return write_store(tmp_path_factory.mktemp("other") / "store", list(map(Path, paths)), spec)


def test_inspection_compares_stores_and_draws_predictions(
    demo_store, held_out_store, other_store, tmp_path, monkeypatch
):
    """The run was trained on a list of stores, the first of them named by a URL."""
    from mme_core.cli import main

    words = [
        f"store=[file://{demo_store},{held_out_store}]",
        f"out={tmp_path / 'run'}",
        "device=cpu",
        "model.image_size=64",
    ]
    assert main(["pretrain", "--config", "tiny.yaml", *words, "optim.steps=2"]) == 0
    monkeypatch.setenv("MME_STORE", str(demo_store))
    monkeypatch.setenv("MME_SECOND_STORE", str(other_store))
    monkeypatch.setenv("MME_RUN", str(tmp_path / "run"))
    text, pictures = run("inspect_targets")
    assert pictures >= 12
    assert "6 videos" in text and "valid trajectories" in text
    assert "difference of a step: median" in text and "loaded" in text


def test_inspection_says_that_it_needs_frames(tmp_path, monkeypatch):
    import dataclasses

    from made_up_targets import SPEC, make_store

    spec = dataclasses.replace(SPEC, frames="none")
    store = make_store(tmp_path / "store", [{"a.mp4": 4}], spec=spec)
    monkeypatch.setenv("MME_STORE", str(store))
    with pytest.raises(CellExecutionError, match=re.escape(f"{store} holds no frames")):
        execute(read("inspect_targets"))


def test_training_on_own_videos_runs(demo_store, tmp_path, monkeypatch):
    """Videos count whatever the case of their suffix."""
    first = Path(json.loads((demo_store / "ledger.jsonl").read_text().splitlines()[0])["path"])
    videos = shutil.copytree(first.parents[1], tmp_path / "videos")
    moved = videos / first.relative_to(first.parents[1])
    moved.rename(moved.with_suffix(".MOV"))
    monkeypatch.setenv("MME_VIDEOS", str(videos))
    monkeypatch.setenv("MME_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("MME_STEPS", "2")
    text, pictures = run("train_your_own")
    assert pictures >= 4
    assert "6 videos, such as" in text and "features (6, 192)" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_small_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 1_000_000
    text = path.read_text()
    assert [place for place in ("/tmp/", "/home/", "/work/", "/root/") if place in text] == []
