"""Workers: they hear no stop signal, so they must end with their trainer; one core is theirs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from torch.utils.data import DataLoader, Dataset

from mme_core import cli
from mme_core.cores import usable_cores
from mme_core.errors import MMEError
from mme_core.processes import ONE_THREAD
from train.data import loader as workers
from train.data.loader import Loader, make_loader, worker_options

LEFT = """
import sys
from mme_core.clips.dataset import ClipDataset, collate
from train.data.loader import make_loader
from train.data.sampler import ClipSampler

if __name__ == "__main__":
    clips = ClipDataset(sys.argv[1], frames=4, image_size=32)
    batches = iter(make_loader(clips, ClipSampler(len(clips), 1), collate, 1))
    next(batches)
    sys.modules["kept"] = batches  # beyond the last line
"""


class Environment(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, _):
        return dict(os.environ)


def test_a_script_that_leaves_its_loader_open_ends(demo_store, tmp_path):
    script = tmp_path / "left.py"
    script.write_text(LEFT)
    assert subprocess.run([sys.executable, script, demo_store], timeout=60).returncode == 0


def test_a_worker_leaves_the_other_cores_to_the_others(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    loader = DataLoader(Environment(), num_workers=1, **worker_options("mme_core.clips.dataset"))
    environment = next(iter(loader))
    assert {name: environment[name] for name in ONE_THREAD} == {name: ["1"] for name in ONE_THREAD}
    assert os.environ["OMP_NUM_THREADS"] == "3" and "OPENBLAS_NUM_THREADS" not in os.environ


def test_no_more_workers_than_cores():
    data, batches = Environment(), [[0]]
    for asked, started in ((1000, usable_cores()), (0, 0)):
        assert make_loader(data, batches, list, asked).num_workers == started


def test_ctrl_c_waits_until_all_workers_are_started(monkeypatch):
    started = []

    def start(loader):
        signal.raise_signal(signal.SIGINT)
        started.append(loader)

    monkeypatch.setattr(DataLoader, "__iter__", start)
    with pytest.raises(KeyboardInterrupt):
        iter(Loader(Environment()))
    assert len(started) == 1


def test_a_worker_is_silent_about_a_trainer_that_ended_and_about_nothing_else(capsys):
    workers._hook(ConnectionResetError, ConnectionResetError(), None)
    assert capsys.readouterr().err == ""
    workers._hook(ValueError, ValueError("bad"), None)
    assert "ValueError: bad" in capsys.readouterr().err


def test_what_a_worker_meets_is_the_last_word(demo_store, tmp_path):
    """Python warns of semaphores that a loader, kept by an error's frames, had left."""
    store = str(tmp_path / "store")
    flows = ["--dataset", "folder", "--root", str(demo_store.parent / "videos"), "--store", store]
    size = ["spec.short_side=64", "spec.long_side=80", "spec.flow=dis-ultrafast"]
    assert cli.main(["flows", *flows, "--serial", "--videos-per-shard", "2", *size]) == 0
    (missing,) = (tmp_path / "store" / "shards" / "00001.zarr" / "position").glob("c*")
    missing.unlink()
    words = ["--config", "tiny.yaml", f"store={store}", f"out={tmp_path / 'run'}"]
    words += ["data.bad_budget=0"]
    command = [sys.executable, "-m", "mme_core", "pretrain", *words, "device=cpu", "data.workers=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "leaked" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mme pretrain: ")


def start_training(demo_store, out):
    """A run with two workers that has begun to train, and its descendants."""
    words = ["--config", "tiny.yaml", f"store={demo_store}", f"out={out}", "optim.steps=100000"]
    command = [sys.executable, "-m", "mme_core", "pretrain", *words, "device=cpu", "data.workers=2"]
    trainer = subprocess.Popen(
        [*command, "log.every=1"], stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert trainer.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return trainer, psutil.Process(trainer.pid).children(recursive=True)


def test_a_killed_worker_ends_the_run_with_one_line(demo_store, tmp_path):
    trainer, descendants = start_training(demo_store, tmp_path / "run")
    workers = [each for each in descendants if each.ppid() != trainer.pid]
    workers[0].kill()
    said = trainer.communicate(timeout=60)[1]
    assert trainer.returncode == 1 and "out of memory?" in said
    assert "Traceback" not in said and "leaked" not in said
    _, alive = psutil.wait_procs(descendants, timeout=30)
    assert not alive


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DataLoader worker (pid 1) died"), ConnectionResetError(104, "reset")],
)
def test_lost_connection_counts_as_a_killed_worker(monkeypatch, error):
    def lose(_):
        raise error
        yield

    monkeypatch.setattr(DataLoader, "__iter__", lose)
    with pytest.raises(MMEError, match="out of memory"):
        next(iter(Loader(Environment())))


def test_connection_error_of_the_data_set_is_raised(monkeypatch):
    def fail(_):
        raise ConnectionResetError("Caught ConnectionResetError in DataLoader worker process 0.")
        yield

    monkeypatch.setattr(DataLoader, "__iter__", fail)
    with pytest.raises(ConnectionResetError):
        next(iter(Loader(Environment())))


def semaphores_of(processes):
    """The named semaphores that the processes have open; other programs have their own."""
    maps = [mapped.path for each in processes for mapped in each.memory_maps()]
    return {Path(path) for path in maps if path.startswith("/dev/shm/sem.mp-")}


def test_killed_trainer_leaves_no_process_and_no_semaphore(demo_store, tmp_path):
    trainer, descendants = start_training(demo_store, tmp_path / "run")
    assert len(descendants) >= 4  # two workers, their server, the tracker of semaphores
    semaphores = semaphores_of(descendants)
    assert semaphores
    trainer.kill()
    trainer.wait()
    trainer.stderr.close()
    _, alive = psutil.wait_procs(descendants, timeout=30)
    assert not alive
    assert not [path for path in semaphores if path.exists()]
