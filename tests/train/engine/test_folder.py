"""The lock of a run's folder."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest
import torch

from mme_core.errors import UsageError
from train.engine import folder
from train.engine.distributed import Ranks

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


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match=r"file/run: cannot be written \(Not a directory\)"),
        folder.lock(tmp_path / "file" / "run", MAIN, pytest.fail),
    ):
        pass
