"""README and docs name only what exists: make targets, commands, options, files, keys, pictures."""

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

from mme_core.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]


def pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))(
        test
    )


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
    fields = {field.name for field in dataclasses.fields(TargetSpec)}
    assert named <= fields | {"hash", "yaml", "py"}


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
def test_linked_headings_exist(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        target = page.parent / link if link else page
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
        slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert anchor in slugs, f"{link}#{anchor}"


@pages
def test_python_imports_exist(page):
    code = code_of(page)
    for module, names in re.findall(r"from ((?:mme_core|train)[\w.]*) import ([\w, ]+)", code):
        for name in names.split(","):
            if name.strip():
                assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"


@pages
def test_names_in_the_library_exist(page):
    """`mme_core.x.y`: a module, or an attribute of one."""
    for name in re.findall(r"(?<![\w/.-])mme_core(?:\.\w+)+", code_of(page)):
        module, _, attribute = name.rpartition(".")
        known = hasattr(importlib.import_module(module), attribute)
        assert known or importlib.util.find_spec(name), name


def test_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in DOCS if page.name != "index.md"]
    assert [page for page in pages if f"]({page})" not in index] == []


@pages
def test_pictures_are_small(page):
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        limit = 1_500_000 if link.endswith(".webp") else 300_000
        assert (page.parent / link).stat().st_size < limit


def python_of(title):
    """The indented Python lines of a section of the README."""
    section = (ROOT / "README.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))


def test_readme_opens_a_store(demo_store):
    code = python_of("Open a store").replace("data/stores/mine", str(demo_store))
    exec(code.replace("14, 14", "2, 2"), {})


def test_readme_gives_features(pan, tmp_path):
    from mme_core import build_pretraining_model
    from mme_core.weights.save import save_weights

    model = build_pretraining_model("tiny", frames=4, image_size=32, depth=1)
    save_weights(tmp_path / "mine.safetensors", model.state_dict(), frames=4, image_size=32)
    code = python_of("Use an encoder").replace("runs/mine", str(tmp_path / "mine.safetensors"))
    code = code.replace("clip.mp4", str(pan)).replace("out/encoder", str(tmp_path / "encoder"))
    names = {}
    exec(code, names)
    assert names["feature"].shape == (192,)
    assert (tmp_path / "encoder" / "config.json").exists()


def test_recipes_page_repeats_what_the_recipes_say():
    configs = ROOT / "train" / "configs"
    page = (ROOT / "docs" / "recipes.md").read_text()
    rows = re.findall(r"^\| (`.+?`(?:, `.+?`)*)(?: \(override\))? \| (.+) \|$", page, re.M)
    named = []
    for names, rest in rows:
        for name in re.findall(r"`([^`]+)`", names):
            named.append(name)
            head = (configs / name).read_text().split("\n\n")[0]
            said = " ".join(line.lstrip("# ") for line in head.splitlines())
            for cell in rest.split(" | "):
                assert cell in said, f"{name}: {cell}"
    recipes = [str(path.relative_to(configs)) for path in configs.rglob("*.yaml")]
    assert sorted(named) == sorted(name for name in recipes if not name.startswith("ablate/"))


def test_readme_explains_a_term_before_using_it():
    """The first screen has none of the words that only the rest defines."""
    first = (ROOT / "README.md").read_text().split("## How it works")[0]
    terms = ("tubelet", "HOG", "shard", "stride", "canvas", "probe", "Zarr", "Ray")
    assert [term for term in terms if re.search(rf"\b{term}", first)] == []


def test_readme_results_stand_in_the_measurements():
    readme = (ROOT / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("|") and "– |" in line]
    numbers = [number for row in rows for number in re.findall(r"(\d+\.\d) %", row)]
    pages = ("measurements/downstream.md", "science.md")
    measured = "".join((ROOT / "docs" / page).read_text() for page in pages)
    assert len(numbers) == 20
    assert [number for number in numbers if f"{number} ±" not in measured] == []


def test_readme_speeds_stand_in_the_measurements():
    readme = (ROOT / "README.md").read_text()
    measured = (ROOT / "docs" / "measurements" / "model.md").read_text()
    numbers = re.findall(r"([\d–]+) clips/s", readme)
    assert len(numbers) >= 3
    assert [number for number in numbers if f"| {number} |" not in measured] == []
