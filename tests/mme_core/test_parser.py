import re

import pytest

from mme_core.errors import UsageError
from mme_core.parser import CommandParser, disk_path


def parser():
    made = CommandParser("made", "What it does.\n\n    mme made -n 3\n", "the end")
    made.add_argument("-n", "--number", metavar="N", type=int, default=7, help="how many")
    made.add_argument("--name", metavar="NAME", required=True, help="what it is called")
    made.add_argument("--own", metavar="X", default=1, help="a number (default: the usual one)")
    made.add_argument("-o", metavar="FILE", type=disk_path, help="what to write")
    made.add_argument("--fast", action="store_true", help="be fast")
    return made


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "the following arguments are required: --name"),
        (["--name", "x", "-n", "y"], "argument -n/--number: invalid int value: 'y'"),
        (
            ["--name", "x", "-o", "s3://b/f"],
            "argument -o: s3://b/f is a URL; name a path on a disk",
        ),
        (["--name", "x", "--slow"], "unrecognized arguments: --slow"),
    ],
)
def test_wrong_words_are_one_line(words, error):
    with pytest.raises(UsageError) as raised:
        parser().parse_args(words)
    assert str(raised.value) == f"{error}; `mme made --help` lists the options"


def test_help_shows_defaults_once(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    out = capsys.readouterr().out
    for option, text in (
        ("-n N, --number N", "how many (default: 7)"),
        ("--name NAME", "what it is called (required)"),
        ("--own X", "a number (default: the usual one)"),
        ("--fast", "be fast"),
    ):
        assert re.search(rf"^  {option} +{re.escape(text)}$", out, re.M)
    assert out.index("What it does.") < out.index("mme made -n 3") < out.index("the end")


def test_the_description_does_not_repeat_the_command(capsys):
    with pytest.raises(SystemExit):
        CommandParser("made", "`mme made`: what it does.\n\nmore").parse_args(["--help"])
    assert "\nWhat it does.\n" in capsys.readouterr().out
