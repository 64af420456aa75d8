"""The scripts complete commands, options and keys; bash's is tried in bash."""

import shutil
import subprocess

import pytest

from mme_core import cli, completion
from mme_core.completion import SCRIPTS, words_in, words_of

WORDS = {
    "flows": ["--dataset", "--root", "spec.stride="],
    "probe": ["--config", "optim.lr=", "optim.layer_decay=", "out="],
    "info": ["--json"],
}


def test_words_are_those_of_the_help():
    words = words_of("flows")
    assert {"--dataset", "--store", "-h", "spec.stride=", "--quiet", "--debug"} <= set(words)
    assert "--max-failures" in words and "--N" not in words
    assert {"-o", "--output", "--layer"} <= set(words_of("visualize"))


def test_recipe_keys_are_words():
    words = words_of("evaluate")
    assert {"--config", "--json", "init=", "eval.clips=", "data.root="} <= set(words)
    assert "key=" not in words


def test_options_in_an_explanation_do_not_count():
    text = "  --list FILE   for csv (default: as --root)\n\nexample: mme x --other\n"
    assert words_in(text) == ["--list", "--quiet", "--debug"]


def test_a_command_whose_extra_is_missing_is_a_name_alone(monkeypatch):
    def lacking(name):
        raise ModuleNotFoundError("torch")

    monkeypatch.setattr(completion.importlib, "import_module", lacking)
    assert words_of("pretrain") == []


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("mme fl", ["flows"]),
        ("mme flows --da", ["--dataset"]),
        ("mme flows spec.st", ["spec.stride="]),
        ("mme probe optim.l", ["optim.lr=", "optim.layer_decay="]),
        ("mme info --", ["--json"]),
        ("mme flows --root vid", []),
    ],
)
def test_bash_completes(line, want):
    words = line.split(" ")
    command = f"""{SCRIPTS["bash"](WORDS)}
compopt() {{ :; }}
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}
_mme; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == want


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_valid(shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    script = SCRIPTS[shell](WORDS)
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_command_prints_the_script(monkeypatch, capsys):
    monkeypatch.setattr(completion, "words_of", lambda name: WORDS.get(name, []))
    assert cli.main(["completion", "fish"]) == 0
    out = capsys.readouterr().out
    assert "-a flows -d" in out and "__fish_seen_subcommand_from flows' -l dataset" in out
    assert cli.main(["completion", "csh"]) == 2
