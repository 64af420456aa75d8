"""Checkpoints: complete or absent, verified when read, refused when of another model."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from mme_core.errors import MMEError, UsageError
from train.engine import checkpoint


def state(step):
    return {"step": step, "model": {"weight": torch.full((1000,), float(step))}}


def test_the_last_n_are_kept_and_the_newest_is_read(tmp_path):
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, step, state(step), keep=2)
    names = [path.name for path in checkpoint.checkpoints(tmp_path)]
    assert names == ["step-00000030.pt", "step-00000002.pt"]
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 30


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), keep=2)
    (tmp_path / "checkpoints" / "step-00000002.tmp").write_bytes(b"half")
    checkpoint.save(tmp_path, 3, state(3), keep=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000001.pt", "step-00000003.pt"]


def test_file_is_synced_before_its_rename_and_folder_after(tmp_path, monkeypatch):
    calls = []
    replace = Path.replace

    def fsync(handle):
        calls.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda a, b: calls.append("rename") or replace(a, b))
    checkpoint.save(tmp_path, 1, state(1), keep=2)
    assert calls == ["step-00000001.tmp", "rename", "checkpoints"]


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load_last(tmp_path, pytest.fail) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, damage):
    checkpoint.save(tmp_path, 1, state(1), keep=2)
    path = checkpoint.save(tmp_path, 2, state(2), keep=2)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes({"flip": content, "cut": content[:2000], "empty": b""}[damage])
    warnings = []
    assert checkpoint.load_last(tmp_path, warnings.append)["step"] == 1
    assert len(warnings) == 1 and "step-00000002.pt: damaged" in warnings[0]
    checkpoint.checkpoints(tmp_path)[1].write_bytes(b"")
    with pytest.raises(MMEError, match="every checkpoint is damaged"):
        checkpoint.load_last(tmp_path, warnings.append)


def test_damaged_ones_of_later_steps_do_not_push_out_what_is_saved(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), keep=2)
    checkpoint.save(tmp_path, 4, state(4), keep=2).write_bytes(b"")
    assert checkpoint.load_last(tmp_path, lambda _: None)["step"] == 1
    checkpoint.save(tmp_path, 3, state(3), keep=1)  # stopped by a signal before step 4
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 3


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, state(1), keep=1)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(MMEError, match=r"step-00000002.pt: cannot be written .*No space left"):
        checkpoint.save(tmp_path, 2, state(2), keep=1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001.pt"]


def test_a_full_disk_without_room_for_the_folder_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(MMEError, match=r"step-00000001.pt: cannot be written .*No space left"):
        checkpoint.save(tmp_path, 1, state(1), keep=1)


def test_a_write_that_fails_midway_names_the_cause(tmp_path, monkeypatch):
    def save(_state, file):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 (as torch raises it)

    monkeypatch.setattr(checkpoint.torch, "save", save)
    with pytest.raises(MMEError, match="No space left on device"):
        checkpoint.save(tmp_path, 2, state(2), keep=1)


def test_ctrl_c_waits_until_the_file_is_written(tmp_path, monkeypatch):
    write = torch.save

    def interrupted(content, file):
        signal.raise_signal(signal.SIGINT)
        write(content, file)

    monkeypatch.setattr(checkpoint.torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, state(2), keep=1)
    assert checkpoint.load_last(tmp_path, pytest.fail)["step"] == 2


def test_code_in_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "bad.pt"
    torch.save({"model": nn.Linear(1, 1)}, path)
    with pytest.raises(MMEError, match="refused"):
        checkpoint.read(path)


def test_weights_of_another_model_are_refused_and_nothing_is_loaded():
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    good = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    cases = {
        "has no bias": {"weight": good["weight"]},
        r"weight is \[4, 3\] there and \[2, 3\]": {**good, "weight": torch.ones(4, 3)},
        "this recipe has no extra": {**good, "extra": torch.ones(1)},
    }
    for message, weights in cases.items():
        with pytest.raises(UsageError, match=message):
            checkpoint.load_weights(model, weights, "a.pt")
    assert torch.equal(model.weight, before)
    checkpoint.load_weights(model, good, "a.pt")
    assert model.weight.eq(1).all()


def test_any_flipped_bit_is_read_or_called_damage(tmp_path):
    """torch and zipfile report it in many ways, some without a message."""
    path = checkpoint.save(tmp_path, 1, {"step": 1}, keep=1)
    content, damaged = path.read_bytes(), tmp_path / "damaged.pt"
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 8
        damaged.write_bytes(flipped)
        try:
            checkpoint.read(damaged)
        except MMEError as error:
            assert "damaged.pt: " in str(error)
