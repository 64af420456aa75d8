"""What the `mme` command does before a sub-command sees its words."""

import errno

import pytest

from mme_core import cli
from mme_core.cli import expand_home, main


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
def test_tilde_means_the_home_folder(monkeypatch, word, expanded):
    monkeypatch.setenv("HOME", "/home/me")
    name = word.partition("=")[0] + "=" if "=~/" in word else ""
    assert expand_home(word) == name + expanded.removeprefix(name)


@pytest.mark.parametrize(
    "words",
    [
        ["flows", "--store=/proc/x/store", "--dataset=folder", "--root={root}", "--serial"],
        ["flows", "--store={root}/file/x", "--dataset=folder", "--root={root}", "--serial"],
        ["flows", "--store={root}/store", "--dataset=demo", "--root=/proc/x", "--serial"],
        ["visualize", "{store}", "-o", "/proc/x.png"],
        ["visualize", "{store}", "-o", "/proc/x.mp4"],
        ["visualize", "{store}", "-o", "/proc/y/x.gif"],
        ["visualize", "{store}", "-o", "{root}/folder.mp4"],
    ],
)
def test_unwritable_folder_gives_a_one_line_error(demo_store, tmp_path, capsys, words):
    for name in ("file", "v.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert main([word.format(root=tmp_path, store=demo_store) for word in words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"mme {words[0]}: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"),
            "a part of this path is a file",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a/b"), "this is a folder: name a file"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "change its permissions"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
    ],
)
def test_a_system_error_comes_with_its_mend(monkeypatch, capsys, error, mend):
    def fail(name, argv):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert main(["info"]) == 1
    assert mend in capsys.readouterr().err


def test_other_system_errors_are_raised(monkeypatch):
    def fail(name, argv):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(ConnectionResetError):
        main(["info"])
