"""`mme flows` with Ray makes the same store with any number of workers and after any kill."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from small_files import HELD_PLUGIN, SPEC, write_tree
from waiting import wait_for

from mme_core.store import TargetStore


def command(videos, store, *more):
    words = ["flows", "--dataset", "folder", "--root", videos, "--store", store, *more]
    return [sys.executable, "-m", "mme_core", *map(str, words)]


def run(videos, store, *more):
    result = subprocess.run(command(videos, store, *SPEC, *more), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def content(store):
    """Returns {name: bytes} of all files of all shards."""
    shards = store / "shards"
    return {str(p.relative_to(shards)): p.read_bytes() for p in shards.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("set") / "videos", 10, ("a", "b", "c"))


@pytest.fixture(scope="module")
def reference(videos, tmp_path_factory):
    """The store of `--serial`, which does not import Ray."""
    store = tmp_path_factory.mktemp("reference") / "store"
    assert "10 videos" in run(videos, store, "--serial", "--videos-per-shard", "3")
    return content(store)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(videos, reference, tmp_path, workers):
    store = tmp_path / "store"
    output = run(videos, store, "--workers", workers, "--videos-per-shard", "3")
    assert f"10 videos in 4 shards of 3, workers: {workers}" in output
    assert content(store) == reference
    assert len((store / "ledger.jsonl").read_text().splitlines()) == 10
    assert sorted(p.name for p in store.iterdir()) == [
        "index.npz",
        "ledger.jsonl",
        "shards",
        "store.json",
    ]


class Held:
    """Runs that wait in their middle until `go`, so that tests can kill them."""

    def __init__(self, videos, folder, monkeypatch):
        (folder / "held_plugin.py").write_text(HELD_PLUGIN)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        spec = [*SPEC[:-1], "spec.flow=held_plugin:flow"]
        self.videos, self.folder, self.more = videos, folder, [*spec, "--videos-per-shard", "1"]

    def start(self, store, *more):
        words = command(self.videos, store, *self.more, *more)
        log = (self.folder / "log").open("w")
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)

    def go(self):
        (self.folder / "go").touch()

    def finish(self, store, *more):
        driver = self.start(store, *more)
        assert driver.wait(300) == 0, self.log()
        return content(store)

    def log(self):
        return (self.folder / "log").read_text()


@pytest.fixture
def held(videos, tmp_path, monkeypatch):
    return Held(videos, tmp_path, monkeypatch)


def finished_shards(store):
    return list(store.glob("shards/*.zarr"))


@pytest.mark.parametrize(
    ("how", "number", "status"),
    [("--serial", signal.SIGINT, 130), ("--workers=2", signal.SIGTERM, 143)],
)
def test_a_stopped_run_has_the_status_of_its_signal(held, tmp_path, how, number, status):
    store = tmp_path / "store"
    driver = held.start(store, how)
    wait_for(lambda: finished_shards(store))
    descendants = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(number)
    assert driver.wait(300) == status, held.log()
    assert "Traceback" not in held.log()
    _, alive = psutil.wait_procs(descendants, timeout=60)
    assert not alive
    assert not list(store.glob("shards/*partial*"))
    assert not (store / "flows.lock").exists()
    stored = len(TargetStore(store).videos)
    assert 1 <= stored < 10
    assert stored == len(finished_shards(store))


def test_killed_driver_and_killed_worker(held, tmp_path):
    """Sends SIGKILL to the driver, and then to a worker of the resumed run."""
    store, undisturbed = tmp_path / "store", tmp_path / "undisturbed"
    driver = held.start(store, "--workers=2")
    wait_for(lambda: finished_shards(store))
    second = subprocess.run(
        command(held.videos, store, *held.more, "--serial"), capture_output=True, text=True
    )
    assert second.returncode == 1
    assert f"is being written by process {driver.pid}" in second.stderr
    descendants = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    assert 1 <= len(TargetStore(store).videos) < 10
    psutil.wait_procs(descendants, timeout=60)

    (tmp_path / "calls").unlink()
    before = len(finished_shards(store))
    driver = held.start(store, "--workers=2")
    wait_for(lambda: len(finished_shards(store)) > before)
    workers = [
        process.parent()
        for process in psutil.Process(driver.pid).children(recursive=True)
        if "preprocess.child" in process.cmdline()
    ]
    os.kill(workers[0].pid, signal.SIGKILL)
    held.go()
    assert driver.wait(300) == 0, held.log()
    assert content(store) == held.finish(undisturbed, "--serial")
    assert len((store / "ledger.jsonl").read_text().splitlines()) == 10


def test_stage_1_imports_no_torch_serial_no_ray():
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['ray'] = None\n"
        "import preprocess.flows, preprocess.shard, preprocess.pool, mme_core.extract\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
