"""What a run's log writes, and what it hands to writers."""

import json
import math

import pytest

from mme_core.weights.run_folder import read_metrics
from train.engine.runlog import RunLog


class Written:
    """A writer that keeps what it gets."""

    def __init__(self):
        self.rows, self.pictures, self.closed = [], [], False

    def numbers(self, step, values):
        self.rows.append((step, dict(values)))

    def picture(self, step, name, path):
        self.pictures.append((step, name, path))

    def close(self):
        self.closed = True


@pytest.fixture
def written():
    return Written()


def test_writers_get_numbers_in_groups(written, tmp_path):
    log = RunLog(tmp_path, True, [written])
    log.row({"step": 2, "epoch": 0.5, "loss": 1.0, "memory": 3.0}, system=["memory"])
    log.row({"step": 2, "epoch": 0.5, "val_loss": 2.0, "knn": 0.25}, group="held-out")
    log.row({"step": 3, "event": "skipped", "videos": ["a"]})
    log.picture(2, "trajectories-0", tmp_path / "a.png")
    log.close()
    assert written.rows == [
        (2, {"train/epoch": 0.5, "train/loss": 1.0, "system/memory": 3.0}),
        (2, {"train/epoch": 0.5, "held-out/loss": 2.0, "held-out/knn": 0.25}),
    ]
    assert written.pictures == [(2, "held-out/trajectories-0", tmp_path / "a.png")]
    assert written.closed


def test_rows_keep_their_keys_in_metrics(written, tmp_path):
    RunLog(tmp_path, True, [written]).row({"step": 1, "val_loss": 2.0}, group="held-out")
    assert read_metrics(tmp_path) == [{"step": 1, "val_loss": 2.0}]


def refuse(word):
    raise ValueError(f"{word} is not JSON")


def test_numbers_that_are_not_finite_are_null(written, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "grad_norm": Infinity}\n')  # an older run's
    log = RunLog(tmp_path, True, [written], after=1)
    log.row({"step": 2, "grad_norm": math.inf, "loss": math.nan, "lr": 0.1})
    rows = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert rows[0] == {"step": 1, "grad_norm": None}
    assert rows[1] == {"step": 2, "grad_norm": None, "loss": None, "lr": 0.1}
    assert math.isnan(read_metrics(tmp_path)[1]["grad_norm"])


def test_other_processes_are_silent(written, tmp_path, capsys):
    log = RunLog(tmp_path, False)
    log.row({"step": 1, "loss": 1.0})
    log.say("hello")
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_resumed_log_drops_later_rows(tmp_path):
    rows = [{"step": step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    RunLog(tmp_path, True, after=2)
    assert read_metrics(tmp_path) == rows[:2]
