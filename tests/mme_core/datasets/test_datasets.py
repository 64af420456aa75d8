"""`folder` and `csv` list every video, with the same labels in every split, and clear errors."""

import os

import cv2
import numpy as np
import pytest

from mme_core.canvas import grid_points
from mme_core.datasets import demo, load_manifest
from mme_core.errors import UsageError
from mme_core.extract.hog import HogField
from mme_core.spec import TargetSpec


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def table(manifest):
    names = (*manifest.class_names, None)  # -1: no label
    return {item.id: names[item.label] for item in manifest.items}


def test_folder_takes_the_first_folder_as_class(tmp_path):
    touch(tmp_path, "b/2.MP4", "a/deep/er/1.avi", "top.webm", "b/-dash.mkv", "a/ü ä/x y.mov")
    touch(tmp_path, "README", "a/notes.txt", ".hidden/x.mp4", "a/.x.mp4")
    manifest = load_manifest("folder", tmp_path)
    assert table(manifest) == {
        "a/deep/er/1.avi": "a",
        "a/ü ä/x y.mov": "a",
        "b/-dash.mkv": "b",
        "b/2.MP4": "b",
        "top.webm": None,
    }
    assert [item.id for item in manifest.items] == sorted(table(manifest))
    assert all(item.path == str(tmp_path / item.id) for item in manifest.items)
    assert manifest.notes == ("files left out, without a video's suffix: 2 (README, a/notes.txt)",)


def test_folder_named_like_a_video(tmp_path):
    touch(tmp_path, "x.mp4/1.mp4")
    (tmp_path / "a/empty.mp4").mkdir(parents=True)
    assert set(table(load_manifest("folder", tmp_path))) == {"x.mp4/1.mp4", "a/empty.mp4"}


def test_folder_follows_links_once(tmp_path):
    touch(tmp_path, "real/a/1.mp4")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a").symlink_to(tmp_path / "real/a")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert set(table(load_manifest("folder", tmp_path / "set"))) == {"a/1.mp4", "gone.mp4"}


def test_folder_name_that_is_not_utf8(tmp_path):
    touch(tmp_path, os.fsdecode(b"a/caf\xe9.mp4"))
    assert [item.id for item in load_manifest("folder", tmp_path).items] == ["a/caf\udce9.mp4"]


def test_split_file(tmp_path):
    touch(tmp_path, "a/1.mp4", "c/3.mp4")
    rows = ["path,class,split,frames", "a/1.mp4,a,train,9", "b/2.mp4,b,train,9", "c/3.mp4,c,val,9"]
    (tmp_path / "split.csv").write_text("\n".join(rows))
    train = load_manifest("folder", tmp_path, "train")
    assert table(train) == {"a/1.mp4": "a", "b/2.mp4": "b"}
    assert table(load_manifest("folder", tmp_path, "val")) == {"c/3.mp4": "c"}
    assert train.class_names == ("a", "b", "c")
    assert train.notes == ("missing videos of the list: 1 (b/2.mp4)",)
    with pytest.raises(UsageError, match=r"no split 'test'; it has train, val"):
        load_manifest("folder", tmp_path, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na/1.mp4,a\n", r"split\.csv:1: no column 'split'"),
        ("path,class,split\na/1.mp4,a,train\na/2.mp4\n", r"split\.csv:3"),
        ("path,class,split\n../1.mp4,a,train\n", r"split\.csv:2: '\.\./1\.mp4' must be"),
        ("path,class,split\na/1.mp4,a,train\na/1.mp4,b,train\n", "two labels"),
    ],
)
def test_bad_split_file(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_manifest("folder", tmp_path, "train")


def test_split_folders_share_their_labels(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/c/3.mp4", "val/b/4.mp4")
    assert table(load_manifest("folder", tmp_path, "val")) == {
        "val/c/3.mp4": "c",
        "val/b/4.mp4": "b",
    }
    assert load_manifest("folder", tmp_path, "val").class_names == ("a", "b", "c")
    with pytest.raises(UsageError, match=r"split .test.: there is neither .* write that table"):
        load_manifest("folder", tmp_path, "test")


def test_no_root_and_no_video(tmp_path):
    with pytest.raises(UsageError, match=r"no video in .*empty; a video is"):
        (tmp_path / "empty").mkdir()
        load_manifest("folder", tmp_path / "empty")
    with pytest.raises(UsageError, match="missing does not exist"):
        load_manifest("folder", tmp_path / "missing")
    touch(tmp_path, "file")
    with pytest.raises(UsageError, match="file is not a folder"):
        load_manifest("folder", tmp_path / "file")
    with pytest.raises(UsageError, match="needs its folder: set root=…"):
        load_manifest("folder", "")
    with pytest.raises(UsageError, match="'k1000' is not a data set"):
        load_manifest("k1000", tmp_path)


def test_unreadable_folder_is_not_skipped(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match="/b cannot be read: Permission denied"):
        load_manifest("folder", tmp_path)


def test_list_with_spaces_and_commas(tmp_path):
    lines = [
        "\ufeffpath label",
        "a/1.mp4 3",
        "b c/2, 3.mp4,0",
        '"q.mp4", 1',
        "",
        f"{tmp_path}/z.mp4\t-1",
    ]
    lines += ["/elsewhere/y.mp4 2", "./a/../n.mp4 2", "a/1.mp4 3"]
    touch(tmp_path, "a/1.mp4", "b c/2, 3.mp4", "z.mp4")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    manifest = load_manifest("csv", tmp_path, list_file=str(tmp_path / "list.txt"))
    assert {item.id: (item.path, item.label) for item in manifest.items} == {
        "a/1.mp4": (f"{tmp_path}/a/1.mp4", 3),
        "b c/2, 3.mp4": (f"{tmp_path}/b c/2, 3.mp4", 0),
        "q.mp4": (f"{tmp_path}/q.mp4", 1),
        "z.mp4": (f"{tmp_path}/z.mp4", -1),
        "/elsewhere/y.mp4": ("/elsewhere/y.mp4", 2),
        "n.mp4": (f"{tmp_path}/n.mp4", 2),
    }
    assert manifest.class_names == ("0", "1", "2", "3")
    assert manifest.notes == (
        "lines left out because they repeat a video: 1 (a/1.mp4)",
        "missing videos of the list: 3 (/elsewhere/y.mp4, n.mp4, q.mp4)",
    )


def test_where_a_list_is_found(tmp_path):
    touch(tmp_path, "lists/1.mp4", "1.mp4")
    (tmp_path / "lists/val.csv").write_text("1.mp4 0")
    in_lists = f"{tmp_path}/lists/1.mp4"
    assert load_manifest("csv", tmp_path / "lists", "val").items[0].path == in_lists
    assert load_manifest("csv", tmp_path / "lists/val.csv").items[0].path == in_lists
    found = load_manifest("csv", tmp_path, list_file=str(tmp_path / "lists/val.csv"))
    assert found.items[0].path == f"{tmp_path}/1.mp4"
    with pytest.raises(UsageError, match=r"train\.csv does not exist; set list_file=…"):
        load_manifest("csv", tmp_path / "lists", "train")
    with pytest.raises(UsageError, match="name the list"):
        load_manifest("csv", tmp_path / "lists")
    with pytest.raises(UsageError, match=r"no video of the list .* such as 1\.mp4 .*check root"):
        load_manifest("csv", tmp_path / "wrong", list_file=str(tmp_path / "lists/val.csv"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.mp4", r"list\.csv:2: 'b\.mp4' has no label"),
        ("b.mp4 jump", r"list\.csv:2: label 'jump' in column 2 is not a whole number"),
        ("b.mp4 1.5", r"list\.csv:2: label '1\.5' in column 2 is not a whole number"),
        ("b.mp4 -2", r"list\.csv:2: label '-2'"),
        ("b.mp4 123456789", r"list\.csv:2: label 123456789 in column 2 is too large"),
        ("a.mp4 1", r"list\.csv:2: 'a\.mp4' has label 1, but 0 in line 1"),
    ],
)
def test_bad_line_of_a_list(tmp_path, line, message):
    (tmp_path / "list.csv").write_text(f"a.mp4 0\n{line}\n")
    with pytest.raises(UsageError, match=message):
        load_manifest("csv", tmp_path / "list.csv")


def test_patches_of_a_demo_texture_look_alike():
    """HOG of a patch correlates with that of every other, so a hidden one can be predicted."""
    spec = TargetSpec()
    for seed in range(4):
        texture = demo._texture(np.random.default_rng(seed), 96, 96, contrast=1.0)
        luma = cv2.cvtColor(texture.astype(np.uint8), cv2.COLOR_RGB2GRAY)
        field = HogField(luma.shape, spec)
        field.load(luma)
        cells = field.at(grid_points(6, 6, spec).reshape(-1, 2)).reshape(36, 4, 9)
        assert np.corrcoef(cells.sum(1))[np.triu_indices(36, 1)].mean() > 0.8


def test_the_demo_set_stays_as_it_was_made(tmp_path):
    root = str(tmp_path / "demo")
    assert len(load_manifest("demo", root, videos=3, seed=7).items) == 3
    assert len(load_manifest("demo", root).items) == 3
    assert len(load_manifest("demo", root, videos=4).items) == 4
    with pytest.raises(UsageError, match="of another seed"):
        load_manifest("demo", root, seed=0)
    with pytest.raises(UsageError, match="seed=-1 of the demo set must be at least 0"):
        load_manifest("demo", str(tmp_path / "new"), seed=-1)
    assert not (tmp_path / "new").exists()
    (tmp_path / "demo" / "split.csv").unlink()  # broken off: the rest is made
    assert len(load_manifest("demo", root, generate=False).items) == 100


def touch_frames(root, *folders):
    touch(root, *(f"{folder}/{number:05d}.jpg" for folder in folders for number in (1, 2, 3)))


def test_folders_of_frames_are_videos(tmp_path):
    touch_frames(tmp_path, "a/v1", "a/v.2", "b/deep/er", "top")
    touch(tmp_path, "c/1.mp4", "c/1.jpg", "c/2.jpg", "d/cover.jpg", "0.jpg", "1.jpg")
    manifest = load_manifest("folder", tmp_path)
    assert table(manifest) == {
        "a/v1": "a",
        "a/v.2": "a",
        "b/deep/er": "b",
        "c/1.mp4": "c",
        "top": None,
    }
    assert all(item.path == str(tmp_path / item.id) for item in manifest.items)
    assert "files left out, without a video's suffix: 5" in manifest.notes[0]


def test_lists_may_name_folders_of_frames(tmp_path):
    touch_frames(tmp_path, "1", "2")
    (tmp_path / "l.txt").write_text("1 3 0\n2 3 5\n3 3 1\n")
    manifest = load_manifest("csv", str(tmp_path / "l.txt"))
    assert table(manifest) == {"1": "0", "2": "5", "3": "1"}
    assert manifest.notes[-1] == "missing videos of the list: 1 (3)"


@pytest.mark.parametrize("suffix", ["gif", "F4V", "y4m", "mxf", "rm", "m2v", "3g2", "h264"])
def test_folder_takes_every_usual_suffix(tmp_path, suffix):
    touch(tmp_path, f"a/1.{suffix}")
    assert table(load_manifest("folder", tmp_path)) == {f"a/1.{suffix}": "a"}


@pytest.mark.parametrize("text", ["", "# a comment\n", "path,label\n"])
def test_a_list_without_a_video_is_named(text, tmp_path):
    (tmp_path / "v.mp4").touch()
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=r"list\.csv holds no video: it needs lines .*path label"):
        load_manifest("csv", tmp_path, list_file=str(tmp_path / "list.csv"))
