"""The messages and the progress bar of a run."""

import io

import pytest
from rich.console import Console

from mme_core.progress import LINE_S
from preprocess import progress
from preprocess.isolate import ShardResult
from preprocess.jobs import Outcome
from preprocess.progress import Display

GOOD = Outcome("", "a", "ok", frames=30)
OTHER = Outcome("", "c", "ok", frames=30)
BAD = Outcome("", "b", "quarantined", "empty")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_shard_in_progress_counts_once(clock):
    with Display(8, Console(file=io.StringIO())) as display:
        assert display.line() == "0/8 videos · 0 frames/s · 0 failed · ? left"
        clock[0] += 2
        display.note(0, [GOOD])
        display.note(0, [GOOD, GOOD, BAD])  # replaces the note before; a child crashed in between
        display.note(1, [GOOD])
        assert display.line() == "3/8 videos · 30 frames/s · 1 failed · 0:03 left"
        display.finish(ShardResult(0, (GOOD, BAD)))
        assert display.line() == "3/8 videos · 30 frames/s · 1 failed · 0:03 left"
        assert display.frames == 30


def test_lines_are_printed_at_intervals(clock):
    output = io.StringIO()
    with Display(2, Console(file=output)) as display:
        display.note(0, [GOOD])
        assert output.getvalue() == ""
        clock[0] += LINE_S + 1
        display.note(0, [GOOD, OTHER])
        display.note(0, [GOOD, OTHER])
    assert output.getvalue().splitlines() == ["2/2 videos · 5 frames/s · 0 failed · 0:00 left"]


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_appears_only_on_a_terminal(monkeypatch, terminal):
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = io.StringIO()
    output.isatty = lambda: terminal
    with Display(2, Console(file=output, force_terminal=True, width=90)) as display:
        display.finish(ShardResult(0, (GOOD,)))
    assert ("1/2 videos" in output.getvalue()) == terminal
