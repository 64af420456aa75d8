"""Recipes: layers, unknown keys, types, choices, and what ships with the package."""

import dataclasses

import pytest

from mme_core.errors import UsageError
from train.recipes.classification import FinetuneConfig
from train.recipes.loading import RECIPES, differences, load, merge, to_dict, to_yaml
from train.recipes.pretraining import PretrainConfig

WORDS = ["store=s", "out=o"]


def read(*argv):
    return load(PretrainConfig, [*argv], "mme pretrain", "")


def test_later_layers_win_and_lists_are_replaced(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("optim: {lr: 1.0, epochs: 3}\nloss: {contents: [pixel, hog]}\n")
    second.write_text("optim: {lr: 2.0}\nloss: {contents: [position]}\n")
    config = read("--config", str(first), "--config", str(second), *WORDS, "optim.steps=7")
    assert (config.optim.lr, config.optim.epochs, config.optim.steps) == (2.0, 3, 7)
    assert config.loss.contents == ["position"]


def test_words_and_files_may_come_in_any_order(tmp_path):
    recipe = tmp_path / "a.yaml"
    recipe.write_text("seed: 5\n")
    assert read(*WORDS, "--config", str(recipe), "seed=6").seed == 6


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lrr=1", "optim.lrr is not a key of this recipe; the nearest is optim.lr"),
        ("optm.lr=1", "optm is not a key"),
        ("optim=1", "optim holds further keys, such as optim.lr"),
        ("optim.lr=much", "optim.lr"),
        ("optim.steps=1.5", "optim.steps"),
        ("precision=int8", "precision=int8 is not one of"),
        ("norm.kind=batch", "norm.kind=batch is not one of patch, step"),
        ("checkpoint.keep=0", "checkpoint.keep=0 must be at least 1"),
        ("optim.steps=0", "optim.steps=0 must be at least 1"),
        ("seed", "'seed' is not of the form key=value"),
        ("tiny.yaml", "not of the form key=value; a recipe is named by --config tiny.yaml"),
        ("seed=-1", "seed=-1 must be at least 0"),
        ("model.depth=0", "model.depth=0 must be at least 1"),
        ("optim.lr=-1", "optim.lr=-1.0 must be at least 0"),
        ("optim.lr=nan", "optim.lr=nan must be at least 0"),
        ("optim.clip=0", "optim.clip=0.0 must be above 0"),
        ("optim.betas=[0.9]", r"optim.betas=\[0.9\] must be two numbers"),
        ("optim.betas=[0.9,1]", "must be two numbers in 0 … 1, 1 excluded"),
        ("optim.warmup_epochs=inf", "optim.warmup_epochs=inf is not a finite number"),
        ("loss.weights.position=nan", "loss.weights.position=nan is not a finite number"),
        ("decoder.width=0", "decoder.width=0 must be at least 1"),
        ("decoder.heads=0", "decoder.heads=0 must be at least 1"),
        ("data.zoom=3", r"data.zoom=3 must be a list, such as data.zoom=\[3\]"),
        ("data.zoom=[10,", r"'data.zoom=\[10,' cannot be read"),
        ("optim.lr=${", r"'optim.lr=\${' cannot be read"),
        ("optim.lr=${nope}", "optim.lr: Interpolation key 'nope' not found"),
    ],
)
def test_a_wrong_word_is_an_error_that_names_it(word, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        read(*WORDS, word)


def test_the_file_of_a_wrong_key_is_named(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {batchsize: 3}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: data\.batchsize .* data\.batch_size"):
        read("--config", str(recipe), *WORDS)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "\xff: {"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    recipe = tmp_path / "mine.yaml"
    recipe.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        read("--config", str(recipe), *WORDS)


def test_missing_values_and_files_are_named():
    with pytest.raises(UsageError, match="out is not set"):
        read("store=s")
    with pytest.raises(UsageError, match=r"no such file.* which are .*pretrain/k400\.yaml"):
        read("--config", "nowhere.yaml", *WORDS)


def test_the_resolved_recipe_reads_back_as_itself(tmp_path):
    config = read(*WORDS, "loss.weights.position=2", "data.zoom=[10,16]", "optim.clip=0.5")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert read("--config", str(path)) == config


def test_differences_name_nested_keys():
    a, b = read(*WORDS), read(*WORDS, "optim.lr=1", "loss.weights.shape=2")
    assert differences(to_dict(a), to_dict(a)) == []
    assert [line.split(":")[0] for line in differences(to_dict(a), to_dict(b))] == [
        "loss.weights",
        "optim.lr",
        "loss.weights.shape",
    ]


def test_every_pretraining_recipe_is_valid_and_opens_with_its_command():
    overlays = {"release.yaml", "plus.yaml"}
    recipes = [*sorted((RECIPES / "pretrain").glob("*.yaml")), RECIPES / "tiny.yaml"]
    assert len(recipes) >= 9
    for path in recipes:
        head = path.read_text().split("\n\n")[0]
        assert head.startswith("#") and "pretrain --config" in head, path
        for word in ("Hardware", "Time", "Result"):
            assert word in head, (path, word)
        read("--config", str(path), *WORDS)
        if path.name not in overlays:
            for overlay in overlays:
                read("--config", str(path), "--config", f"pretrain/{overlay}", *WORDS)


def test_any_dataclass_is_a_schema():
    @dataclasses.dataclass
    class Other:
        name: str = "a"

    assert merge(Other, [("", {"name": "b"})]).name == "b"


def test_home_is_meant_by_a_tilde_in_recipes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.yaml").write_text("store: ~/s\ndata:\n  root: ~/v\n")
    words = ["--config", str(tmp_path / "r.yaml"), "out=~/o", "init=none", "val_store=a~/b"]
    config = load(FinetuneConfig, words, "", "")
    assert (config.store, config.data.root) == (f"{tmp_path}/s", f"{tmp_path}/v")
    assert (config.out, config.val_store) == (f"{tmp_path}/o", "a~/b")
