"""A video that crashes or hangs its process is quarantined, and the others are stored."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from small_files import SPEC, write_clip, write_tree

from mme_core.datasets import load_manifest
from mme_core.errors import StoreError, UsageError
from mme_core.io.place import LocalPlace, open_place
from mme_core.spec import TargetSpec
from mme_core.store.target_store import TargetStore, open_or_create_store
from preprocess.isolate import Isolated
from preprocess.jobs import ShardJob
from preprocess.lock import StoreLock
from preprocess.shard import write_shard

# a flow algorithm that is fatal for frames wider than high by much, as a broken decoder may be
PLUGIN = """
import ctypes, time
import numpy as np

def fatal(first, second):
    if first.shape[1] > 1.4 * first.shape[0]:
        {what}
    return np.zeros((*first.shape, 2), np.float32)
"""
CRASH = "ctypes.string_at(0)"
HANG = "ctypes.CDLL(None).sleep(1000)"  # in C, where no Python code looks at a clock
RAISE = "raise RuntimeError('odd\\nvideo')"


def job(tmp_path, flow, timeout=60.0):
    overrides = [word for word in SPEC if "flow" not in word and "long_side" not in word]
    spec = TargetSpec.from_overrides([*overrides, f"spec.flow={flow}", "spec.long_side=96"])
    manifest = load_manifest("folder", tmp_path / "videos")
    open_or_create_store(tmp_path / "store", spec, "folder", None, manifest.class_names)
    return ShardJob(0, manifest.items, spec, str(tmp_path / "store"), manifest.root, timeout)


@pytest.fixture
def poisoned(tmp_path):
    """Three clips. The second ends the process."""
    write_tree(tmp_path / "videos", 3, ("a",))
    write_clip(tmp_path / "videos/a/001.mp4", width=96)
    return tmp_path


def run(tmp_path, monkeypatch, what, timeout=60.0):
    (tmp_path / "fatal_plugin.py").write_text(PLUGIN.format(what=what))
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    with Isolated([]) as isolated:
        result = isolated.write(job(tmp_path, "fatal_plugin:fatal", timeout), seen.append)
    store = TargetStore(tmp_path / "store")
    assert list(store.videos["id"]) == ["a/000.mp4", "a/002.mp4"]
    assert open_place(tmp_path / "store").names("shards") == ["00000.zarr"]
    assert [row.status for row in result.outcomes] == ["ok", "quarantined", "ok"]
    return result.outcomes[1].reason


def test_crashing_video_is_quarantined(poisoned, monkeypatch):
    reason = run(poisoned, monkeypatch, CRASH)
    assert reason == "the decoding process ended by SIGSEGV"


def test_hanging_video_is_quarantined(poisoned, monkeypatch):
    monkeypatch.setattr("preprocess.isolate.GRACE_S", 0.5)
    reason = run(poisoned, monkeypatch, HANG, timeout=2.0)
    assert reason == "took longer than 2 s and could not be interrupted"


def test_unexpected_exception_quarantines_the_video(poisoned, monkeypatch):
    reason = run(poisoned, monkeypatch, RAISE)
    assert reason == "internal error while it was extracted: RuntimeError: odd video"


def test_killed_child_is_replaced(tmp_path):
    write_tree(tmp_path / "videos", 3, ("a",))
    killed = []

    def kill_once(outcome):
        if not killed:
            killed.extend(workers())
            killed[0].send_signal(signal.SIGKILL)

    with Isolated([]) as isolated:
        result = isolated.write(job(tmp_path, "dis-fast"), kill_once)
    assert [row.status for row in result.outcomes] == ["ok"] * 3
    assert len(TargetStore(tmp_path / "store").videos) == 3


def workers():
    """Returns the child processes that write shards, without those of other tests."""
    children = psutil.Process().children()
    running = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "preprocess.child" in child.cmdline()]


def test_one_child_serves_many_shards(tmp_path):
    write_tree(tmp_path / "videos", 2, ("a",))
    with Isolated([]) as isolated:
        isolated.write(job(tmp_path, "dis-fast"), lambda outcome: None)
        (child,) = workers()
        isolated.write(job(tmp_path, "dis-fast"), lambda outcome: None)
        assert workers() == [child]
    assert not child.is_running()


def test_errors_that_end_the_run(tmp_path):
    write_tree(tmp_path / "videos", 1, ("a",))
    with Isolated([]) as isolated, pytest.raises(UsageError, match="no_such_module"):
        isolated.write(job(tmp_path, "no_such_module:flow"), lambda outcome: None)
    with Isolated([]) as isolated, pytest.raises(StoreError, match="must be on a shared disk"):
        open_place(tmp_path).remove("store/store.json")
        missing = ShardJob(0, (), TargetSpec(), str(tmp_path / "store"), str(tmp_path), 1.0)
        isolated.write(missing, lambda outcome: None)
    with Isolated([]) as isolated, pytest.raises(UsageError, match="does not see the videos"):
        open_place(tmp_path).write("store/store.json", b"{}")
        missing = ShardJob(0, (), TargetSpec(), str(tmp_path / "store"), "/no/such/root", 1.0)
        isolated.write(missing, lambda outcome: None)


def test_no_shard_is_stored_without_the_lock(tmp_path):
    write_tree(tmp_path / "videos", 1, ("a",))
    work, place = job(tmp_path, "dis-fast"), open_place(tmp_path / "store")
    with StoreLock(place) as lock:
        with pytest.raises(StoreError, match="lost its lock"):
            write_shard(dataclasses.replace(work, lock="of another"), lambda message: None)
        assert place.names("shards") == []
        write_shard(dataclasses.replace(work, lock=lock.token), lambda message: None)
        assert place.names("shards") == ["00000.zarr"]


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write_tree(tmp_path / "videos", 2, ("a",))
    work = job(tmp_path, "dis-fast")
    real = LocalPlace.write

    def write(self, name, data):
        if "shape" in name:
            raise OSError(28, "No space left on device")
        real(self, name, data)

    monkeypatch.setattr(LocalPlace, "write", write)
    with pytest.raises(StoreError, match=r"cannot write to .*store: No space left on device"):
        write_shard(work, lambda message: None)
    assert open_place(tmp_path / "store").names("shards") == []


def test_child_ends_with_its_parent(poisoned, monkeypatch):
    """Also while it hangs: a killed Ray worker must not leave a process that writes."""
    mark = poisoned / "hanging"
    (poisoned / "fatal_plugin.py").write_text(
        PLUGIN.format(what=f"open({str(mark)!r}, 'w').close(); {HANG}")
    )
    monkeypatch.syspath_prepend(poisoned)
    work = job(poisoned, "fatal_plugin:fatal")
    parent = os.fork()
    if parent == 0:
        try:
            Isolated([]).write(work, lambda outcome: None)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 300
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (child,) = psutil.Process(parent).children()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


SLOW_PLUGIN = """
import time
from pathlib import Path
import numpy as np

def flow(first, second):
    Path(__file__).with_name("begun").touch()
    time.sleep(0.3)
    return np.zeros((*first.shape, 2), np.float32)
"""


def test_a_pause_does_not_use_the_time_limit(tmp_path):
    """Stops all processes of a run for 8 s. The run takes 4 s and the limit is 6 s for a video."""
    (tmp_path / "slow_plugin.py").write_text(SLOW_PLUGIN)
    write_clip(tmp_path / "videos" / "a" / "1.mp4")
    words = ["--dataset", "folder", "--root", tmp_path / "videos", "--store", tmp_path / "store"]
    words += ["--serial", "--timeout", "6", *SPEC[:-1], "spec.flow=slow_plugin:flow"]
    run = subprocess.Popen(
        [sys.executable, "-m", "mme_core", "flows", *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(8)
    os.killpg(run.pid, signal.SIGCONT)
    assert run.wait(300) == 0
    assert '"status": "ok"' in (tmp_path / "store" / "ledger.jsonl").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels choose otherwise")
def test_the_process_that_decodes_ends_first_without_memory(poisoned, monkeypatch):
    what = "raise RuntimeError(open('/proc/self/oom_score_adj').read())"
    assert "RuntimeError: 1000" in run(poisoned, monkeypatch, what)
