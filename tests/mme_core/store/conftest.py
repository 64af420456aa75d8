"""A small store of two shards, and a copy of it that a test may change."""

import shutil
from pathlib import Path

import pytest
from made_up_targets import make_store


@pytest.fixture(scope="module")
def store_path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "s", [{"a.mp4": 11, "b": 3}, {"c": 6}])


@pytest.fixture
def copied(store_path, tmp_path):
    return Path(shutil.copytree(store_path, tmp_path / "copy"))
