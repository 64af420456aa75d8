"""The benchmark of the training step, at toy size on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

from mme_core.store import TargetStore

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOY = "--size tiny --frames 4 --image-size 32 --batch 2 --steps 2 --warmup 1"


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_each_case_is_measured_and_a_failure_does_not_end_the_others(tmp_path):
    path = tmp_path / "results.jsonl"
    cases = ["store-4", "plain", "eager"]  # the first needs a store
    said = run("gpu_train.py", *TOY.split(), "--json", path, "--cases", *cases)
    assert "store-4: RuntimeError: needs --store" in said
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["case"] for row in rows] == ["plain", "eager"]
    assert all(row["clips_per_s"] > 0 for row in rows)
    assert "| eager |" in said


def test_a_store_is_copied_until_it_has_enough_videos(demo_store, tmp_path):
    run("bigger_store.py", demo_store, tmp_path / "big", "--videos", 8)
    small, big = TargetStore(demo_store), TargetStore(tmp_path / "big")
    assert len(big.videos) == 12 and len(set(big.videos["id"])) == 12
    last, first = big.read(11, 0, 4), small.read(5, 0, 4)
    assert (last.displacement == first.displacement).all()
