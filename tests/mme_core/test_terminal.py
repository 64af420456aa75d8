"""Names of others reach the terminal as text, whatever they hold."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from mme_core import cli
from mme_core.errors import UsageError
from mme_core.terminal import plain, styled
from train.engine.runlog import RunLog

NAMES = ["a[/b].mp4", "runs[v2]", ":cat:.mp4", "[red]x", "[link=x]", "tail\\", "é 中.mp4"]


def test_control_characters_are_shown():
    assert plain("a\x1b]0;title\x07b\r\n") == r"a\x1b]0;title\x07b\r\n"
    assert plain("\x9b31m\u202egnp.exe\x7f") == r"\x9b31m\u202egnp.exe\x7f"
    assert plain("é 中 \udce9") == "é 中 \udce9"


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_markup(name):
    out = io.StringIO()
    console = Console(file=out, width=200)
    table = Table()
    table.add_column("name")
    table.add_row(styled(name))
    console.print(table)
    console.print(styled(f"path {name}"))
    assert out.getvalue().count(name) == 2


def test_a_runs_log_prints_names_as_they_are(tmp_path, capsys):
    log = RunLog(tmp_path, True)
    for name in NAMES:
        log.say(f"out={name}")
        log.warn(f"unreadable: {name}")
    log.say("\x1b[2J")
    out = capsys.readouterr().out
    for name in NAMES:
        assert f"out={name}\n" in out and f"warning: unreadable: {name}\n" in out
    assert "\x1b" not in out


def test_errors_are_one_visible_line(monkeypatch, capsys):
    def refuse(name, argv):
        raise UsageError("no file '\x1b[31mx'\rtry y")

    monkeypatch.setattr(cli, "_run", refuse)
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "mme info: no file '\\x1b[31mx'\\rtry y\n"


def test_some_words_of_a_log_stand_out(tmp_path):
    log = RunLog(tmp_path, True)
    log.console = Console(file=(out := io.StringIO()), force_terminal=True, color_system="standard")
    log.say("step 1  loss 0.5  [x]", "loss 0.5")
    assert out.getvalue() == "step 1  \x1b[1mloss 0.5\x1b[0m  [x]\n"
