"""The folders are as docs/architecture.md says, and imports go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("mme_core", "preprocess", "train")
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def imports(path):
    """Names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def groups():
    """{room: position} from the line of the page that lists mme_core's groups."""
    line = next(line for line in PAGE.splitlines() if line.startswith("    spec errors"))
    return {room: i for i, group in enumerate(line.split("|")) for room in group.split()}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_the_library(package):
    for path in (ROOT / package).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        assert roots <= {"mme_core", package}, path


def test_library_imports_only_from_groups_to_the_left():
    order = groups()
    for path in (ROOT / "mme_core").rglob("*.py"):
        room = path.relative_to(ROOT / "mme_core").parts[0].removesuffix(".py")
        for name in imports(path):
            parts = name.split(".")
            if room in order and parts[0] == "mme_core" and parts[1] in order:
                assert order[parts[1]] <= order[room], f"{path} imports {name}"


def test_page_names_every_module():
    names = [str(path.relative_to(ROOT)) for path in MODULES if not path.name.startswith("__")]
    assert [name for name in names if name not in PAGE] == []
