"""The lock of a run's folder, and whose output it holds."""

import errno
import fcntl
import os
import resource
import subprocess
import sys

import pytest
import torch

from mme_core.errors import UsageError
from train.engine import folder
from train.engine.distributed import Ranks
from train.recipes.classification import FinetuneConfig
from train.recipes.commands import SCHEMAS
from train.recipes.pretraining import PretrainConfig
from train.recipes.scoring import EvaluateConfig

MAIN, OTHER = (Ranks(rank, 1, torch.device("cpu")) for rank in (0, 1))

HOLD = """
import sys, time, torch
from pathlib import Path
from train.engine import folder
from train.engine.distributed import Ranks
with folder.lock(Path(sys.argv[1]), Ranks(0, 1, torch.device("cpu")), print):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    with folder.lock(tmp_path, MAIN, pytest.fail):
        with (
            pytest.raises(UsageError, match=rf"in use by another run \(process {os.getpid()} on"),
            folder.lock(tmp_path, MAIN, pytest.fail),
        ):
            pytest.fail("two runs hold the folder")
        with folder.lock(tmp_path, OTHER, pytest.fail):
            pass  # the main process locks for all
    with folder.lock(tmp_path, MAIN, pytest.fail):
        pass


def test_a_killed_run_leaves_the_folder_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UsageError, match=f"process {process.pid} on"):
        folder.lock(tmp_path, MAIN, pytest.fail).__enter__()
    process.kill()
    process.communicate()
    with folder.lock(tmp_path, MAIN, pytest.fail):
        pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    warnings = []
    with folder.lock(tmp_path, MAIN, warnings.append):
        pass
    assert len(warnings) == 1 and "cannot be locked" in warnings[0]


def test_a_lock_that_does_not_fit_on_the_disk_names_the_folder(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as a full disk: no byte fits
    try:
        with (
            pytest.raises(UsageError, match="run: cannot be written"),
            folder.lock(tmp_path / "run", MAIN, pytest.fail),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match=r"file/run: cannot be written \(Not a directory\)"),
        folder.lock(tmp_path / "file" / "run", MAIN, pytest.fail),
    ):
        pass


@pytest.mark.parametrize("command", SCHEMAS)
def test_the_command_that_wrote_a_folder_is_named(tmp_path, command):
    config = SCHEMAS[command](out=str(tmp_path))
    folder.write_config(config)
    other = (FinetuneConfig if command == "evaluate" else EvaluateConfig)(out=str(tmp_path))
    with pytest.raises(UsageError, match=f"holds the output of `mme {command}`: choose another"):
        folder.check_command(other)


def test_a_folder_of_an_older_version_names_its_command(tmp_path):
    folder.write_config(FinetuneConfig(out=str(tmp_path), init="none"))
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("profile:", "gone:"))
    with pytest.raises(UsageError, match="holds the output of `mme finetune`"):
        folder.check_command(EvaluateConfig(out=str(tmp_path)))
    with pytest.raises(UsageError, match="gone is not a key of this recipe"):
        folder.check_command(FinetuneConfig(out=str(tmp_path)))


def test_a_config_of_another_program_is_not_overwritten(tmp_path):
    (tmp_path / "config.yaml").write_text("title: my site\n")
    with pytest.raises(UsageError, match=r"holds a config\.yaml that no command here wrote"):
        folder.check_command(EvaluateConfig(out=str(tmp_path)))


def test_checkpoints_without_their_recipe_are_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000104.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"checkpoints without the config\.yaml of their run"):
        folder.check_folder(PretrainConfig(out=str(tmp_path)))
    folder.check_folder(PretrainConfig(out=str(tmp_path), resume="force"))


@pytest.mark.parametrize("command", SCHEMAS)
def test_no_command_writes_into_a_store(demo_store, command):
    with pytest.raises(UsageError, match=f"^out={demo_store}/run lies in the store {demo_store}:"):
        folder.check_command(SCHEMAS[command](out=f"{demo_store}/run"))
