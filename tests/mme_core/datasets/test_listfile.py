"""Lists in the dialects that users have: all paths and labels are read correctly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mme_core.datasets import load_manifest
from mme_core.datasets.listfile import read_list
from mme_core.datasets.paths import any_path
from mme_core.errors import UsageError

PLAIN = {"v0.mp4": 0, "v1.mp4": 1}


def read(folder, text, encoding="utf-8"):
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    rows, notes = read_list(path)
    return {video: label for _, video, label in rows}, notes


@given(
    path=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
        lambda text: text == text.strip(' \t\n,"\xa0') and text.split() and text[0] not in "\ufeff#"
    ),
    label=st.integers(0, 9999),
    separator=st.sampled_from([" ", ",", "\t", ", "]),
)
def test_every_path_comes_back(tmp_path_factory, path, label, separator):
    file = tmp_path_factory.mktemp("list") / "list.csv"
    file.write_text(f"first.mp4 0\n{path}{separator}{label}\n", encoding="utf-8")
    assert read_list(file)[0][1] == (2, path, label)


@pytest.mark.parametrize(
    "text",
    [
        "v0.mp4 0\nv1.mp4 1\n",
        "v0.mp4\t0\r\nv1.mp4\t1\r\n",
        "v0.mp4;0\nv1.mp4; 1\n",
        "v0.mp4,0,\nv1.mp4,1,\n",
        "# my list\nv0.mp4 0\n\n  # of two\nv1.mp4 1\n",
        '"v0.mp4","0"\n"v1.mp4","1"\n',
        '"v0.mp4" 0\nv1.mp4 "1"\n',
        "video_path,label\nv0.mp4,0\nv1.mp4,1\n",
        "path label\nv0.mp4 0\nv1.mp4 1\n",
        "Path,Label\nv0.mp4 0\nv1.mp4 1\n",
        "id,label,path\n7,0,v0.mp4\n8,1,v1.mp4\n",
        "label;path\n0;v0.mp4\n1;v1.mp4\n",
        "path,class,num_frames\nv0.mp4,0,60\nv1.mp4,1,60\n",
    ],
)
def test_dialects_of_path_and_label(tmp_path, text):
    assert read(tmp_path, text) == (PLAIN, ())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_lists_that_spreadsheets_save(tmp_path, encoding):
    text = "path,label\r\nv0.mp4,0\r\nvidéo.mp4,1\r\n"
    assert read(tmp_path, text, encoding)[0] == {"v0.mp4": 0, "vidéo.mp4": 1}


@pytest.mark.parametrize("text", ['"a, b.mp4",3', "a, b.mp4,3", '"a, b.mp4";3', "a, b.mp4 3"])
def test_a_path_may_hold_separators(tmp_path, text):
    assert read(tmp_path, text)[0] == {"a, b.mp4": 3}


def test_quotes_are_doubled_inside_quotes(tmp_path):
    assert read(tmp_path, '"say ""hi"".mp4",3')[0] == {'say "hi".mp4': 3}


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", ", ";"])
def test_frames_and_label_are_told_apart(tmp_path, separator):
    lines = [separator.join(row) for row in (("v0.mp4", "60", "0"), ("v1", "61", "1"))]
    labels, notes = read(tmp_path, "\n".join(lines))
    assert labels == {"v0.mp4": 0, "v1": 1}
    assert notes == ("three columns, read as path, number of frames and label",)


@pytest.mark.parametrize("text", ["v0.mp4 0 -1\nv1.mp4 0 -1\n", "v0 1 300\nv1 1 250\n"])
def test_lists_for_pretraining_have_no_labels(tmp_path, text):
    labels, notes = read(tmp_path, text)
    assert set(labels.values()) == {-1}
    assert notes == ("three columns, read as path, first frame and number of frames: no labels",)


def test_path_that_ends_in_a_number_stays_whole(tmp_path):
    assert read(tmp_path, "clip 1 0\nclip.mp4 1\n")[0] == {"clip 1": 0, "clip.mp4": 1}
    assert read(tmp_path, "a,  7,0\nclip.mp4 1\n")[0] == {"a,  7": 0, "clip.mp4": 1}


def test_comments_that_look_like_videos_are_counted(tmp_path):
    labels, notes = read(tmp_path, "#1.mp4 0\nv.mp4 1\n# made on Monday\n")
    assert labels == {"v.mp4": 1}
    assert notes == ("lines left out because they begin with #: 1 (#1.mp4 0)",)
    assert read(tmp_path, '"#1.mp4" 0\n')[0] == {"#1.mp4": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v.mp4 0\nw.mp4 60 1\n", r"list\.csv:2: three columns, but line 1 has two"),
        ("v.mp4,,1\n", r"list\.csv:1: column 2 is empty"),
        ("v.mp4,\n", r"list\.csv:1: 'v\.mp4' has no label in column 2"),
        ("v.mp4 60 jump\n", r"list\.csv:1: label 'jump' in column 3 is not a whole number"),
        ("v.mp4 60 -2\n", r"list\.csv:1: label '-2' in column 3"),
        ('"v.mp4 0\n', r"list\.csv:1: a double quote in column 1 is not closed"),
        ('"v.mp4",x\n', r"list\.csv:1: column 2 is not a whole number"),
        ("path,start\nv.mp4,0\n", r"list\.csv:1: the heading path, start must name"),
        ("id,label,path\n1,0\n", r"list\.csv:2: 2 columns, but the heading names 3"),
        ("id,label,path\n1,x,v.mp4\n", r"list\.csv:2: label 'x' in column 2"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_sparse_labels_get_a_note(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "l.csv").write_text("a.mp4 0\nb.mp4 99999\n")
    manifest = load_manifest("csv", str(tmp_path / "l.csv"))
    assert manifest.notes == ("the largest label is 99999, but only 2 labels occur",)


def test_tilde_means_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "v.mp4").touch()
    (tmp_path / "l.csv").write_text("~/v.mp4 0\n")
    assert any_path("~/l.csv") == tmp_path / "l.csv"
    (item,) = load_manifest("csv", "~/l.csv").items
    assert (item.id, item.path) == ("v.mp4", str(tmp_path / "v.mp4"))
