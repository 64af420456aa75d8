"""A run over several Ray nodes: one is killed, one is added, and the store is the same."""

import subprocess
import sys
import time

import pytest
from small_files import SPEC, write_tree

SLOW = """
import time
import numpy as np

def flow(first, second):
    time.sleep(0.1)
    return np.zeros((*first.shape, 2), np.float32)
"""


def content(store):
    shards = store / "shards"
    return {str(p.relative_to(shards)): p.read_bytes() for p in shards.rglob("*") if p.is_file()}


def finished_shards(store):
    return len(list(store.glob("shards/*.zarr")))


@pytest.mark.slow
def test_store_is_the_same_after_node_changes(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    videos = write_tree(tmp_path / "videos", 24, ("a", "b"))
    (tmp_path / "slow_plugin.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = [*SPEC[:-1], "spec.flow=slow_plugin:flow"]
    words = ["flows", "--dataset", "folder", "--root", videos, "--videos-per-shard", "1", *spec]
    command = [sys.executable, "-m", "mme_core", *map(str, words)]

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        store = tmp_path / "store"
        driver = subprocess.Popen([*command, "--store", str(store), "--address", cluster.address])
        wait_for_shards(store, 3, driver)
        cluster.remove_node(nodes[0], allow_graceful=False)
        wait_for_shards(store, 6, driver)
        cluster.add_node(num_cpus=1)
        assert driver.wait(300) == 0
    finally:
        cluster.shutdown()
    alone = tmp_path / "alone"
    subprocess.run([*command, "--store", str(alone), "--serial"], check=True)
    assert content(store) == content(alone)
    assert len((store / "ledger.jsonl").read_text().splitlines()) == 24


def wait_for_shards(store, number, driver):
    deadline = time.monotonic() + 240
    while finished_shards(store) < number:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
