"""The demo set: the same files for a seed, classes that only motion tells apart."""

import numpy as np
import pytest

from mme_core.datasets import demo, load_manifest
from mme_core.errors import UsageError
from mme_core.extract import extract_video
from mme_core.spec import TargetSpec


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    return root, load_manifest("demo", root, videos=11)


def test_files_do_not_depend_on_their_number(made, tmp_path):
    root, manifest = made
    again = load_manifest("demo", tmp_path, videos=2)
    for item in again.items:
        assert (tmp_path / item.id).read_bytes() == (root / item.id).read_bytes()
    more = load_manifest("demo", tmp_path, videos=3)  # adds what is missing
    assert {item.id for item in more.items} == {demo.demo_row(n)[0] for n in range(3)}
    assert len(manifest.items) == 11


def test_it_is_a_folder_with_a_split_file(made):
    root, manifest = made
    train = load_manifest("folder", root, "train")
    assert train.class_names == manifest.class_names == demo.CLASSES
    assert {i.id: i.label for i in train.items} == {
        i.id: i.label for i in load_manifest("demo", root, "train", videos=11).items
    }
    rows = [demo.demo_row(number) for number in range(100)]
    per_class = {(name, split): 0 for name in demo.CLASSES for split in ("train", "val")}
    for _, name, split in rows:
        per_class[name, split] += 1
    assert set(per_class.values()) == {8, 2}


def test_seed_and_folder_are_checked(made, tmp_path):
    with pytest.raises(UsageError, match="another seed"):
        load_manifest("demo", made[0], videos=1, seed=1)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty and no demo set"):
        load_manifest("demo", tmp_path, videos=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    planned = load_manifest("demo", tmp_path / "none", videos=7, generate=False)
    assert len(planned.items) == 7
    assert not (tmp_path / "none").exists()


def test_another_seed_looks_different():
    first, other = (next(demo.render(0, seed)) for seed in (0, 1))
    assert np.abs(first.astype(int) - other).mean() > 20


@pytest.mark.parametrize(("name", "axis", "sign"), [("left", 0, -1), ("down", 1, 1)])
def test_objects_move_as_the_class_says(made, name, axis, sign):
    manifest = made[1]
    item = next(item for item in manifest.items if manifest.class_names[item.label] == name)
    spec = TargetSpec(short_side=128, long_side=160, flow="dis-fast", frames="none")
    targets = extract_video(item.path, spec)
    step = targets.displacement[targets.valid].reshape(-1, 2)
    moves = step - np.median(step, axis=0)  # against the background
    fast = np.linalg.norm(moves, axis=1) > 0.8
    assert fast.mean() > 0.1
    assert np.median(moves[fast][:, axis]) * sign > 0.9
    assert abs(np.median(moves[fast][:, 1 - axis])) < 0.5
