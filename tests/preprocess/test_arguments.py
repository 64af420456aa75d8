"""The arguments of `mme flows` and `mme estimate`."""

import pytest
from small_files import SPEC, write_tree

from mme_core.cli import main as mme
from preprocess.arguments import command_parser, read_spec


@pytest.fixture
def videos(tmp_path):
    return write_tree(tmp_path / "videos", 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spec.strid=2"], "spec.strid is not a field; the fields are stride, hop"),
        (["spec.flow=raft"], "spec.flow=raft is unknown: use one of dis-ultrafast"),
        (["spec.flow=raft-small"], "spec.flow=raft-small needs its weights: set spec.flow_weights"),
        (["--workers", "2"], "--serial uses no Ray"),
        (["--limit", "1", "--fraction", "0.5"], "exclude each other"),
        (["--store", ""], "--store is empty"),
        (["--store", "memory://a"], "--store memory://a lives in the memory of one process"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["--fraction", "1.5"], "--fraction 1.5 must be above 0"),
        (["--max-failures", "-1"], "--max-failures -1 must not be negative"),
        (["spec.short_side=16", "spec.flow=dis-fast"], "short_side=16 must be at least 32 for"),
        (["spec.hog_bins=129"], "spec.hog_bins=129 must be at most 128"),
        (["--list", "x.csv"], "--list belongs to --dataset csv"),
        (["--demo-videos", "3"], "--demo-videos belongs to --dataset demo"),
        (["--demo-seed", "0"], "--demo-seed belongs to --dataset demo"),
        (["spec.long_side=20000"], "spec.long_side=20000 must be at most 4096"),
        (["spec.short_side=20000"], "spec.short_side=20000 must be at most 4096"),
        (["--split", "train"], "split 'train': there is neither"),
    ],
)
def test_wrong_arguments(videos, tmp_path, capsys, arguments, message):
    words = ["--dataset", "folder", "--root", str(videos), "--store", str(tmp_path / "store")]
    assert mme(["flows", *words, "--serial", *SPEC, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1  # one line, no traceback
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("gpus", ["-1", "nan", "inf"])
def test_wrong_number_of_gpus_is_refused(videos, tmp_path, capsys, gpus):
    words = ["--dataset", "folder", "--root", str(videos), "--store", str(tmp_path / "store")]
    assert mme(["flows", *words, "--gpus-per-task", gpus]) == 2
    assert f"--gpus-per-task {gpus} must be 0 or more" in capsys.readouterr().err
    assert mme(["flows", *words, "--gpus-per-task", "1.5"]) == 2
    assert "--gpus-per-task 1.5: more than one must be a whole number" in capsys.readouterr().err


def test_the_path_of_weights_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "folder", "spec.flow=raft-small", "spec.flow_weights=raft.pth"]
    arguments = command_parser("flows", "").parse_intermixed_args(words)
    assert read_spec(arguments).flow_weights == str(tmp_path / "raft.pth")


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("command", ["flows", "estimate"])
def test_wrong_time_limit_is_refused(videos, tmp_path, capsys, command, limit):
    words = ["--dataset", "folder", "--root", str(videos), "--timeout", limit]
    words += ["--store", str(tmp_path / "store")] if command == "flows" else []
    assert mme([command, *words]) == 2
    assert f"--timeout: {limit} is not a number of seconds above 0" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
