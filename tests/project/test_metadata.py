"""Files about the project agree with setup.cfg."""

import configparser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_citation_has_the_version_and_licence(setup):
    citation = load("CITATION.cff")
    assert citation["version"] == setup["metadata"]["version"]
    assert citation["license"] == setup["metadata"]["license"]
    assert len(citation["preferred-citation"]["authors"]) == 7


def test_changelog_has_the_version(setup):
    assert f"## {setup['metadata']['version']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_ci_runs_the_oldest_and_newest_python(setup):
    versions = load(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert setup["options"]["python_requires"] == f">={versions[0]}"
    assert f"Programming Language :: Python :: {versions[-1]}" in setup["metadata"]["classifiers"]


def test_pre_commit_pins_a_version_of_ruff():
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["rev"].startswith("v")
    assert {hook["id"] for hook in repository["hooks"]} == {"ruff-check", "ruff-format"}
