"""Every command works in a folder whose modules have the names of ours and of the libraries.

Each of these modules ends the process that imports it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_files import SPEC, write_tree

from mme_core.store import TargetStore

ROOT = Path(__file__).parents[2]
NAMES = ("train", "preprocess", "tests", "utils", "mme_core", "numpy", "cv2", "av", "torch", "zarr")
BIN = Path(sys.executable).parent
# what the console script `mme` does: its own folder is first on the path, not the current one
SCRIPT = f"""#!{sys.executable}
import sys
from mme_core.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
FATAL = "import os\nos.write(2, b'imported ' + __name__.encode())\nos._exit(77)\n"
PLUGIN = "import numpy as np\ndef flow(a, b):\n    return np.zeros((*a.shape, 2), np.float32)\n"


@pytest.fixture
def folder(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    for name in NAMES:
        (here / f"{name}.py").write_text(FATAL)
    return here


@pytest.fixture(scope="module")
def mme(tmp_path_factory):
    script = tmp_path_factory.mktemp("bin") / "mme"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("set") / "videos", 2, ("a",))


def run(folder, *command, path=str(ROOT)):
    """The output of a command that must succeed."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "imported" not in done.stderr
    return done.stdout


def flows(mme, videos, *more):
    return [mme, "flows", "--dataset", "folder", "--root", videos, "--store", "store", *more, *SPEC]


def pretrain(store):
    return ["pretrain", "--config", "tiny.yaml", f"store={store}", "device=cpu", "optim.steps=1"]


def test_library(folder):
    names = "TargetStore, ClipDataset, extract_video, load_encoder"
    run(folder, sys.executable, "-P", "-c", f"from mme_core import {names}")


def test_flows_serial_and_verify(folder, mme, videos):
    run(folder, *flows(mme, videos, "--serial", "--videos-per-shard", "1"))
    assert len(TargetStore(folder / "store").videos) == 2
    assert "no problem" in run(folder, mme, "verify", "store", "--workers", "2")


def test_flows_with_ray(folder, mme, videos):
    run(folder, *flows(mme, videos, "--workers", "1"))
    assert len(TargetStore(folder / "store").videos) == 2


@pytest.mark.parametrize("how", ["--serial", "--workers=1"])
def test_flow_plugin_in_the_current_folder(folder, mme, videos, how):
    (folder / "my_flow.py").write_text(PLUGIN)
    run(folder, *flows(mme, videos, how), "spec.flow=my_flow:flow")
    assert len(TargetStore(folder / "store").videos) == 2


def test_flows_with_the_folder_on_pythonpath(folder, mme, videos):
    """Except for a module that is named as we are: the interpreter finds that before us."""
    (folder / "mme_core.py").unlink()
    (folder / "my_flow.py").write_text(PLUGIN)
    command = flows(mme, videos, "--serial")
    run(folder, *command, "spec.flow=my_flow:flow", path=f".{os.pathsep}{ROOT}")


def test_flows_as_a_module(folder, videos):
    (folder / "mme_core.py").unlink()
    run(folder, sys.executable, "-m", "mme_core", *flows("", videos, "--serial")[1:])


@pytest.mark.parametrize("train", [FATAL, ""], ids=["fatal", "empty"])
def test_pretrain_with_a_worker(folder, mme, demo_store, train):
    (folder / "train.py").write_text(train)
    run(folder, mme, *pretrain(demo_store), "out=run", "data.workers=1")
    assert (folder / "run" / "metrics.jsonl").exists()


def test_pretrain_with_staging(folder, mme, demo_store):
    run(folder, mme, *pretrain(demo_store), "out=run", "data.workers=0", "data.stage=copies")
    assert list(folder.glob("copies/*/shards"))


@pytest.mark.slow
def test_pretrain_under_torchrun(folder, mme, demo_store):
    torchrun = [BIN / "torchrun", "--standalone", "--nproc-per-node=2", "--no-python", mme]
    run(folder, *torchrun, *pretrain(demo_store), "out=run", "data.workers=1")
    assert (folder / "run" / "metrics.jsonl").exists()
