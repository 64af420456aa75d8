"""Where a run's rows go at Weights & Biases."""

import sys
from types import SimpleNamespace

import pytest

from train.engine.runlog import RunLog


@pytest.fixture
def started(monkeypatch):
    """The arguments of every wandb.init."""
    calls = []

    def init(**options):
        calls.append(options)
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    fake = SimpleNamespace(init=init, api=SimpleNamespace(api_key=None))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return calls


def begin(run, after=0):
    RunLog(run, True, {}, wandb="mme", after=after).close()


def test_a_resumed_run_keeps_its_id_and_a_new_one_is_new(started, tmp_path):
    begin(tmp_path / "run")
    begin(tmp_path / "run", after=5)
    begin(tmp_path / "run")  # the folder was used by a run without a checkpoint
    begin(tmp_path / "other" / "run")
    first, resumed, anew, other = (call["id"] for call in started)
    assert first == resumed and len({first, anew, other}) == 3
    assert {call["resume"] for call in started} == {"allow"}
