"""Every command's help, examples and exit statuses; what --json, --quiet and --debug do."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_targets import make_store

from mme_core import cli
from mme_core.cli import COMMANDS, main
from mme_core.completion import words_of
from mme_core.errors import MMEError
from mme_core.parser import WIDTH
from preprocess.flows import TOO_MANY_FAILURES

ROOT = Path(__file__).parents[2]
FLOWS = ("flows", "--dataset=folder", "--root={bad}", "--serial")


def help_of(command):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue()


def options_of(text):
    """The lines of a help text that explain options."""
    part = text.split("\noptions:\n")[1].split("\n\n")[0]
    return part.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_one_line_an_option_with_its_default(command):
    for line in options_of(help_of(command)):
        found = re.fullmatch(r"  (-\S.*?)\s{2,}(\S.*)", line)
        assert found, f"not one line: {line}"
        assert len(line) <= WIDTH, line
        takes_value = re.search(r"-[a-z-]+ [A-Z{]", found[1])
        assert not takes_value or re.search(r"\((default: .+|required)\)$", line), line


@pytest.mark.parametrize("command", COMMANDS)
def test_example_has_options_and_keys_that_exist(command):
    words, known = COMMANDS[command].example.split(), words_of(command)
    assert words[0] == command
    for word in words[1:]:
        if word.startswith("-"):
            assert word in known
        elif "=" in word:
            assert word.split("=")[0] + "=" in known
        elif word.endswith(".yaml"):
            assert (ROOT / "train" / "configs" / word).exists()


def test_mme_alone_shows_the_map(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name:<11}{command.help}\n             mme {command.example}\n" in out


def test_a_mistyped_command_gets_an_offer(capsys):
    assert main(["flow"]) == 2
    assert capsys.readouterr().err == "mme: no command 'flow'; did you mean `mme flows`?\n"


def statuses():
    """{status: meaning} of the table in docs/commands.md."""
    text = (ROOT / "docs" / "commands.md").read_text()
    return {int(n): words for n, words in re.findall(r"^\| (\d+) \| (.+?) \|$", text, re.M)}


def run(*words, after=""):
    command = f"{sys.executable} -P -m mme_core {' '.join(words)} {after}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["info", "{store}"], 0),
        (["info", "{folder}"], 1),
        (["verify", "{damaged}"], 1),
        (["info", "{store}", "--nothing"], 2),
        (["nothing"], 2),
        (
            [*FLOWS, "--store={folder}/s", "--max-failures=0"],
            TOO_MANY_FAILURES,
        ),
    ],
)
def test_exit_statuses(demo_store, tmp_path, words, status, capsys):
    bad, damaged = tmp_path / "bad" / "x", make_store(tmp_path / "damaged", [{"a": 2}])
    bad.mkdir(parents=True)
    (bad / "a.mp4").touch()
    (damaged / "shards/00000.zarr/valid/c.0.0.0").write_bytes(b"")
    places = {"store": demo_store, "folder": tmp_path, "bad": bad.parent, "damaged": damaged}
    assert main([word.format(**places) for word in words]) == status
    assert status in statuses()


def test_exit_status_of_interruptions(monkeypatch, capsys):
    from train.engine.signals import STOPPED

    def interrupted(name, argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main(["info", "x"]) == 130
    # the signals of flows and training are sent in test_flows.py and test_resume.py
    assert set(statuses()) == {0, 1, 2, TOO_MANY_FAILURES, STOPPED, 130, 141, 143}


def test_exit_status_of_a_closed_pipe(demo_store):
    # 0 where the command has written all before the reader ends
    assert run("info", str(demo_store), "--videos 6 --json", after="| true") in (0, 141)
    assert run("--help", after="| true") in (0, 141)


def test_quiet_prints_results_and_errors_alone(demo_store, tmp_path, capsys):
    assert main(["info", str(demo_store), "--quiet"]) == 0
    assert "6 stored" in capsys.readouterr().out
    words = ["--dataset", "demo", "--root", str(tmp_path / "v"), "--demo-videos", "1", "--serial"]
    small = ["spec.stride=1", "spec.short_side=64", "spec.long_side=80"]
    assert main(["flows", *words, "--store", str(tmp_path / "s"), *small, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["info", "nowhere", "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("mme info: ")


def test_debug_adds_the_traceback(monkeypatch, capsys):
    def fail(name, argv):
        assert argv == ["x"]  # the flag is not passed on
        raise MMEError("broken; mend it")

    monkeypatch.setattr(cli, "_run", fail)
    assert main(["info", "x"]) == 1
    assert capsys.readouterr().err == "mme info: broken; mend it\n"
    assert main(["info", "x", "--debug"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("mme info: broken; mend it\n")


def test_json_is_all_that_is_printed(tmp_path, capsys):
    store = make_store(tmp_path / "store", [{"a": 2, "b": 1}])
    video = ["--dataset", "demo", "--root", str(tmp_path / "v"), "--demo-videos", "2"]
    small = ["spec.stride=1", "spec.short_side=64", "spec.long_side=80", "--sample", "1"]
    assert main(["verify", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 2
    assert main(["estimate", *video, *small, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["videos"] == 2 and about["core_hours"] > 0 and about["bytes"] > 0
