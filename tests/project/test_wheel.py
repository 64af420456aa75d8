"""What is installed: the wheel holds everything, and each stage runs with its own extra alone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mme_core", "preprocess", "train")
# What the other extra installs, and this one does not
ABSENT = {
    "preprocess": ["torch", "torchvision", "timm", "einops", "omegaconf", "wandb", "matplotlib"],
    "train": ["ray", "psutil"],
}
BLOCKER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Absent())
"""
RUN = """
import json, sys
from mme_core.cli import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
import mme_core
print(mme_core.__file__)
"""
DEMO = ["--dataset", "demo", "--root", "videos", "--demo-videos", "14"]
DEMO += ["spec.stride=1", "spec.short_side=64", "spec.long_side=80"]
SMALL = ["model.size=tiny", "model.depth=2", "model.frames=8", "model.image_size=48"]
LABELLED = ["init=run", "store=store", "device=cpu", "data.workers=0", *SMALL]
TUNED = ["val_store=val", "optim.epochs=1", "eval.clips=1", "eval.crops=1"]
STAGES = {
    "preprocess": [
        ["flows", "--serial", "--store", "store", "--split", "train", *DEMO],
        ["flows", "--serial", "--store", "val", "--split", "val", *DEMO],
        ["info", "store"],
        ["verify", "store"],
        ["visualize", "store", "-o", "look.png"],
        ["report", "store", "-o", "store.html"],
    ],
    "train": [
        ["pretrain", "--config", "tiny.yaml", "store=store", "out=run", "optim.steps=1"],
        ["finetune", "out=tuned", *TUNED, *LABELLED],
        ["features", "out=features.npz", *LABELLED],
        ["report", "run", "-o", "run.html"],
        ["report", "features.npz", "-o", "neighbours.html"],
    ],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the sdist, as an index would get both; without network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (path,) = (tree / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where stage 1 leaves its store and stage 2 finds it."""
    return tmp_path_factory.mktemp("work")


def run(python, extra, folder, environment):
    """Runs the stage; the file of the package that did it."""
    command = [python, "-c", RUN, json.dumps(STAGES[extra])]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_wheel_holds_every_module_and_recipe(wheel):
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    expected = {str(p.relative_to(ROOT)) for p in files if p.suffix in (".py", ".yaml", ".typed")}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "train/configs/pretrain/k400.yaml" in found


@pytest.mark.parametrize("extra", STAGES)
def test_each_stage_runs_without_what_the_other_needs(wheel, folder, tmp_path, extra):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.format(names=ABSENT[extra]))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert run(sys.executable, extra, folder, environment).is_relative_to(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("extra", STAGES)
def test_each_extra_alone_in_a_clean_environment(wheel, tmp_path_factory, folder, extra):
    """Downloads what it needs: 0.8 GB on the disk for `preprocess`, 6 GB for `train`."""
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    try:
        subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[{extra}]"], check=True)
        first = ABSENT[extra][0]
        missing = subprocess.run([python, "-c", f"import {first}"], capture_output=True, text=True)
        assert f"No module named '{first}'" in missing.stderr
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        assert run(python, extra, folder, environment).is_relative_to(place)
    finally:
        shutil.rmtree(place)
