import re

import pytest

from mme_core import progress
from mme_core.progress import Progress, clock, follow
from mme_core.terminal import quieted


@pytest.fixture
def hurried(monkeypatch):
    """Each step prints its line at once."""
    monkeypatch.setattr(progress, "LINE_S", -1.0)


def test_a_pipe_gets_plain_lines(hurried, capsys):
    with Progress(4, "videos") as shown:
        shown.advance()
        shown.advance(2, failed=1)
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert re.fullmatch(r"1/4 videos · [\d.e+]+/s · \d+:\d\d left", first)
    assert re.fullmatch(r"3/4 videos · [\d.e+]+/s · 1 failed · \d+:\d\d left", second)
    assert out == "" and "\x1b" not in err


def test_short_work_prints_nothing(capsys):
    assert list(follow("abc", 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_quiet_and_other_processes_are_silent(hurried, capsys):
    with quieted(True):
        list(follow("abc", 3, "letters"))
    with Progress(1, "videos", silent=True) as shown:
        shown.advance()
    assert capsys.readouterr().err == ""


def test_times_are_hours_minutes_and_seconds():
    assert [clock(s) for s in (0, 42.4, 61, 3723)] == ["0:00", "0:42", "1:01", "1:02:03"]
