"""Where a run's numbers and pictures go at Weights & Biases and in TensorBoard."""

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mme_core.errors import UsageError
from train.engine.writers import TensorBoard, start_writers
from train.recipes.pretraining import LogConfig


@pytest.fixture
def started(monkeypatch):
    """The arguments of every wandb.init, and what was logged."""
    calls, logged = [], []

    def init(**options):
        calls.append(options)
        return SimpleNamespace(
            log=logged.append, finish=lambda: None, define_metric=lambda *_, **__: None
        )

    fake = SimpleNamespace(
        init=init,
        login=lambda *, prompt, verify: False,
        Image=lambda path: f"image of {path}",
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return SimpleNamespace(calls=calls, logged=logged)


def begin(run, after=0):
    (writer,) = start_writers(LogConfig(wandb=True), run, {"seed": 3}, after)
    return writer


def test_a_resumed_run_keeps_its_id_and_a_new_one_is_new(started, tmp_path):
    begin(tmp_path / "run")
    begin(tmp_path / "run", after=5)
    begin(tmp_path / "run")  # the folder was used by a run without a checkpoint
    begin(tmp_path / "other" / "run")
    first, resumed, anew, other = (call["id"] for call in started.calls)
    assert first == resumed and len({first, anew, other}) == 3
    assert {call["resume"] for call in started.calls} == {"allow"}


def test_wandb_is_offline_without_a_login(started, monkeypatch, tmp_path):
    begin(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    begin(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setattr(sys.modules["wandb"], "login", lambda *, prompt, verify: True)
    begin(tmp_path)
    monkeypatch.setattr(sys.modules["wandb"], "login", lambda: pytest.fail("it asks for a key"))
    sys.modules["wandb"].api = SimpleNamespace(api_key=None)  # an older version
    begin(tmp_path)
    modes = [call["mode"] for call in started.calls]
    assert modes == ["offline", "online", "online", "offline"]
    assert started.calls[0]["config"] == {"seed": 3}


def test_wandb_gets_the_step_with_numbers_and_pictures(started, tmp_path):
    writer = begin(tmp_path)
    writer.numbers(4, {"train/loss": 0.5})
    writer.picture(4, "held-out/trajectories-0", tmp_path / "a.png")
    assert started.logged == [
        {"step": 4, "train/loss": 0.5},
        {"step": 4, "held-out/trajectories-0": f"image of {tmp_path / 'a.png'}"},
    ]


def test_tensorboard_continues_a_resumed_curve(tmp_path):
    first = TensorBoard(tmp_path, {"optim": {"lr": 0.1}}, after=0)
    for step in (1, 2, 3):
        first.numbers(step, {"train/loss": 10.0 * step})
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6, 3), (0, 0, 255), np.uint8))
    first.picture(3, "held-out/picture", tmp_path / "a.png")
    first.close()
    resumed = TensorBoard(tmp_path, {}, after=1)
    resumed.numbers(2, {"train/loss": 21.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 10.0), (2, 21.0)]
    texts = [event.tensor_proto.string_val[0] for event in events.Tensors("recipe/text_summary")]
    assert b"optim.lr: 0.1" in texts[0]


def test_a_picture_keeps_its_colours_in_tensorboard(tmp_path):
    writer = TensorBoard(tmp_path, {}, after=0)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6, 3), (0, 0, 255), np.uint8))
    writer.picture(3, "held-out/picture", tmp_path / "a.png")
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    encoded = events.Images("held-out/picture")[0].encoded_image_string
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (4, 6, 3) and picture[0, 0].tolist() == [0, 0, 255]


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match=r"log\.tensorboard=true needs .* pip install tensorboard"):
        start_writers(LogConfig(tensorboard=True), tmp_path, {})


def test_no_writer_is_started_unasked(tmp_path):
    assert start_writers(LogConfig(), tmp_path, {}) == []
