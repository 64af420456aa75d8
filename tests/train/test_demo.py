"""`make demo`: its steps fit together, its table says what it is; slow: all of it on few videos."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from rich.console import Console
from waiting import wait_for

from mme_core.spec import TargetSpec
from train import demo
from train.recipes.classification import FinetuneConfig
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig
from train.recipes.scoring import ProbeConfig

SCHEMAS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "probe": ProbeConfig}

FEW_VIDEOS = """
import sys
from train import demo
demo.VIDEOS = 60
sys.exit(demo.main(sys.argv[1:]))
"""


@pytest.fixture
def places(tmp_path):
    return demo.Places(tmp_path / "data", tmp_path / "out")


def test_recipes_of_the_steps_are_valid_and_of_one_model(places):
    configs = [
        load(SCHEMAS[words[0]], words[1:], "", "")
        for _, words in demo.steps(places)
        if words[0] in SCHEMAS
    ]
    assert len(configs) == 4
    pretrain, _, *finetune = configs
    for config in finetune:
        assert config.model.size == pretrain.model.size
        assert config.model.depth == pretrain.model.depth
        assert config.model.frames == pretrain.model.frames
    assert {config.init for config in finetune} == {"none", pretrain.out}


def test_the_targets_fit_the_recipe(places):
    spec = TargetSpec.from_overrides(demo.SPEC)
    config = load(PretrainConfig, demo.steps(places)[3][1][1:], "", "")
    assert config.target.length <= spec.length
    assert config.model.image_size <= min(spec.short_side, spec.long_side)


def test_the_table_has_both_weights_and_says_that_it_is_a_smoke_test(places):
    rows = [
        {"weights": name, "clip": clip, "linear": {"accuracy": value}, "knn": {"accuracy": 0.5}}
        for name, value in (("runs/pretrain", 0.75), ("random weights", 0.25))
        for clip in ("video", "still frame")
    ]
    report = {"rows": rows, "test_videos": 40, "training_videos": 160, "classes": 10}
    (places.out / "probe").mkdir(parents=True)
    (places.out / "probe" / "probe.json").write_text(json.dumps(report))
    for weights, value in ((demo.PRETRAINED, 0.9), (demo.RANDOM, 0.6)):
        places.finetuned(weights).mkdir()
        row = json.dumps({"step": 1, "final_top1": value})
        (places.finetuned(weights) / "metrics.jsonl").write_text(row + "\n")
    console = Console(record=True, width=120)
    console.print(demo.result_table(places))
    text = console.export_text()
    assert "SMOKE TEST" in text and "40 test videos" in text and "chance 10%" in text
    lines = [line.split() for line in text.splitlines() if "%" in line and "│" in line]
    assert [[word for word in line if "%" in word] for line in lines] == [
        ["75%", "50%", "90%"],
        ["25%", "50%", "60%"],
    ]


@pytest.mark.parametrize(
    ("tell", "number", "status"), [(os.kill, signal.SIGTERM, 143), (os.killpg, signal.SIGINT, 130)]
)
def test_a_stopped_demo_lets_its_step_save(places, tell, number, status):
    """A scheduler tells the driver alone; a terminal tells its step too."""
    words = ["--data", str(places.data), "--out", str(places.out)]
    with subprocess.Popen(
        [sys.executable, "-c", FEW_VIDEOS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as driver:
        wait_for(lambda: list(places.store("train").glob("shards/*.zarr")))
        step = psutil.Process(driver.pid).children()
        tell(driver.pid, number)
        said, _ = driver.communicate(timeout=300)
        assert driver.returncode == status
        said = " ".join(said.split())
        assert f"ended with status {status}" in said and "Traceback" not in said
    assert len(step) == 1 and not step[0].is_running()
    assert not (places.store("train") / "flows.lock").exists()


@pytest.mark.slow
def test_all_of_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "VIDEOS", 60)
    assert demo.main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "figure4.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "tracks.png").stat().st_size > 10_000
