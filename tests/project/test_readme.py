"""README and docs name only what exists: make targets, commands, options, files, keys, pictures."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from mme_core.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)(test)


def code_of(page):
    """What stands in backticks or in an indented or fenced block."""
    text = page.read_text()
    fenced = re.findall(r"^```.*?^```", text, re.M | re.S)
    indented = re.findall(r"^(?: {4}|\t).*$", text, re.M)
    inline = re.findall(r"(?<!`)`([^`]+)`(?!`)", text)
    return "\n".join([*fenced, *indented, *inline])


@pages
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.M))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", code_of(page))) <= targets


@pages
def test_commands_exist(page):
    text = code_of(page)
    named = re.findall(r"(?<![\w/-])mme ([a-z]+)\b", text) + re.findall(r"-m mme_core (\w+)", text)
    named += re.findall(r"bin/mme ([a-z]+)\b", text)
    assert set(named) <= set(COMMANDS)


@pages
def test_files_exist(page):
    """Paths below a folder of the repository, links, and recipes by the name `--config` takes."""
    text = page.read_text()
    folders = "benchmarks|cluster|docs|mme_core|notebooks|preprocess|tests|train"
    named = re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*[\w/]", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing += [link for link in links if not (page.parent / link).exists()]
    recipes = re.findall(r"--config ([\w/.-]+\.yaml)", text)
    configs = ROOT / "train" / "configs"
    missing += [name for name in recipes if not (configs / name.split("configs/")[-1]).exists()]
    assert not missing


@pages
def test_specification_fields_exist(page):
    from mme_core.spec import TargetSpec

    named = set(re.findall(r"\bspec\.([a-z_]+)", code_of(page)))
    assert named <= set(TargetSpec().to_dict()) | {"hash", "yaml", "py"}


@pages
def test_recipe_keys_exist(page):
    """`optim.lr=…` and its like, in pages that show a training command."""
    from dataclasses import fields, is_dataclass

    from train.recipes import classification as finetune_config
    from train.recipes import pretraining as config

    sections: dict[str, set[str]] = {}
    for module in (config, finetune_config):
        for item in vars(module).values():
            if isinstance(item, type) and is_dataclass(item):
                for field in fields(item):
                    inner = field.default_factory
                    if isinstance(inner, type) and is_dataclass(inner):
                        known = {each.name for each in fields(inner)}
                        sections[field.name] = sections.get(field.name, set()) | known
    for section, key in re.findall(r"(?<![\w./-])(\w+)\.([a-z_]+)(?==|`)", code_of(page)):
        if section in sections:
            assert key in sections[section], f"{section}.{key}"


@pages
def test_options_exist(page):
    """Options that follow `mme COMMAND` in the same line or its continuation."""
    lines = code_of(page).replace("\\\n", " ").splitlines()
    for line in lines:
        call = re.search(r"(?<![\w/-])(?:\.venv/bin/)?mme ([a-z]+)\b(.*)", line)
        if not call or call[1] not in COMMANDS or "--" not in call[2]:
            continue
        known = help_of(call[1])
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", call[2].split("#")[0]):
            assert option in known, f"mme {call[1]} {option}"


HELP: dict[str, str] = {}


def help_of(command):
    if command not in HELP:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([command, "--help"])
        HELP[command] = printed.getvalue()
    return HELP[command]


@pages
def test_pictures_are_small(page):
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / link).stat().st_size < 300_000


def test_example_reads_a_store(demo_store):
    """The Python lines of the README run as they stand."""
    block = re.search(
        r"From Python:\n\n((?: {4}.*\n|\n)+)", (ROOT / "README.md").read_text()
    ).group(1)
    code = "\n".join(line[4:] for line in block.splitlines())
    code = code.replace("data/stores/mine", str(demo_store)).replace("14, 14", "2, 2")
    exec(code, {})
