"""What the `mme` command does before a sub-command sees its words."""

import pytest

from mme_core.cli import expand_home


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("~", "/home/me"),
        ("~/v", "/home/me/v"),
        ("--root=~/v", "/home/me/v"),
        ("store=~/s", "/home/me/s"),
        ("data.val_root=~/l.csv", "/home/me/l.csv"),
        ("./~/v", "./~/v"),
        ("a~/v", "a~/v"),
        ("~someone/v", "~someone/v"),
        ("note=~approximately", "note=~approximately"),
    ],
)
def test_home_is_meant_by_a_tilde(monkeypatch, word, expanded):
    monkeypatch.setenv("HOME", "/home/me")
    name = word.partition("=")[0] + "=" if "=~/" in word else ""
    assert expand_home(word) == name + expanded.removeprefix(name)
