"""Ctrl-C ends a command in order: one line, status 130, no process and no half result stays."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch
from small_files import SPEC, write_tree

from mme_core import cli
from mme_core.model import build_classifier
from mme_core.weights.save import save_weights

VIDEOS = ["device=cpu", "data.workers=1", "data.dataset=folder", "data.root={set}"]
MODEL = ["init=none", "model.size=tiny", "model.depth=1", "model.frames=4", "model.image_size=32"]
CASES = {  # words, what is there when the work begins, the result
    "evaluate": (
        ["init={tmp}", *VIDEOS, "out={tmp}/out"],
        "out/config.yaml",
        "out/evaluation.json",
    ),
    "probe": ([*MODEL, *VIDEOS, "out={tmp}/out"], "out/config.yaml", "out/probe.json"),
    "features": ([*MODEL, *VIDEOS, "out={tmp}/f.zarr"], ".part-f.zarr", "f.zarr"),
    "retarget": (["{tmp}/s", "--store={tmp}/new", "--serial"], "new/store.json", "new/index.npz"),
    "repair": (["{tmp}/s"], "s/flows.lock", "s/shards/00000.zarr"),
}


def prepare(folder):
    """Weights of a classifier, and a store with flow that lacks its first shard."""
    torch.manual_seed(0)
    weights = build_classifier("tiny", 2, depth=1, frames=4, image_size=32).state_dict()
    names = ["left", "right"]
    save_weights(
        folder / "model.safetensors", weights, frames=4, image_size=32, class_names=names, recipe={}
    )
    root = write_tree(folder / "videos", 2)
    words = ["--dataset=folder", f"--root={root}", f"--store={folder / 's'}", "--serial", *SPEC]
    assert cli.main(["flows", *words, "--keep-flow", "--videos-per-shard=1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ctrl_c_leaves_no_process_and_no_result(name, labelled_set, tmp_path):
    words, sign, result = CASES[name]
    prepare(tmp_path)
    if name == "repair":
        shutil.rmtree(tmp_path / result)
    command = [sys.executable, "-m", "mme_core", name]
    command += [word.format(tmp=tmp_path, set=labelled_set) for word in words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    while process.poll() is None and not (tmp_path / sign).exists():
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 130, said
    assert said.endswith(f"mme {name}: interrupted\n") and "Traceback" not in said
    assert not (tmp_path / result).exists() and not list(tmp_path.rglob(".part-*"))
    with pytest.raises(ProcessLookupError):
        for _ in range(300):
            os.killpg(process.pid, 0)  # its fork server ends a moment later
            time.sleep(0.1)
