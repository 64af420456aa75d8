"""The notebook runs from its first cell to its last, and is committed without its output."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "inspect_targets.ipynb"


def test_notebook_runs_on_a_small_store(demo_store, monkeypatch):
    monkeypatch.setenv("MME_STORE", str(demo_store))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": NOTEBOOK.parent}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) >= 8
    assert "6 videos" in text and "valid trajectories" in text
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_notebook_is_committed_without_output():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert NOTEBOOK.stat().st_size < 30_000
