"""Recipes: layers, unknown keys, types, choices, and what ships with the package."""

import dataclasses

import pytest

from mme_core.clips.contents import CONTENTS, GROUPS
from mme_core.clips.settings import MERGES, NORMS
from mme_core.clips.views import SAMPLINGS
from mme_core.datasets import DATASETS
from mme_core.errors import UsageError, named
from mme_core.masking import MASKS, hidden_count
from mme_core.model import DECODERS
from mme_core.transformer import SIZES
from train.recipes.classification import FinetuneConfig
from train.recipes.fields import MISSING, walk
from train.recipes.loading import (
    RECIPES,
    changed_keys,
    differing_keys,
    load,
    merge,
    to_dict,
    to_yaml,
)
from train.recipes.pretraining import PretrainConfig
from train.recipes.scoring import EvaluateConfig, FeaturesConfig, ProbeConfig

SCORING = [ProbeConfig, EvaluateConfig, FeaturesConfig]
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


@pytest.mark.parametrize("name", ["007", "yes", "1e3", "run #1", "a: b", "[x]", "2026-11-26"])
def test_text_is_taken_as_it_stands(name):
    config = read(f"out={name}", f"store='{name}'", f"data.stage={name}")
    assert config.out == config.store == config.data.stage == name
    assert read("out=o", f"store={name}").store == (["x"] if name == "[x]" else name)


def test_key_without_effect_is_refused_with_the_commands_that_have_it():
    words = ["init=none", "out=f.npz", "data.crops=3"]
    with pytest.raises(UsageError, match=r"data\.crops belongs to mme pretrain, finetune$"):
        load(FeaturesConfig, words, "", "")


def test_an_output_behind_a_url_is_refused():
    with pytest.raises(UsageError, match=r"out=s3://b/run is a URL; name a path on a disk"):
        read("store=s3://b/s", "out=s3://b/run")


def test_words_and_files_may_come_in_any_order(tmp_path):
    recipe = tmp_path / "a.yaml"
    recipe.write_text("seed: 5\n")
    assert read(*WORDS, "--config", str(recipe), "seed=6").seed == 6


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lrr=1", "optim.lrr is not a key of this recipe; the nearest is optim.lr"),
        ("optm.lr=1", "optm.lr is not a key of this recipe; the nearest is optim.lr"),
        ("optim=1", "optim holds further keys, such as optim.lr"),
        ("optim.lr=much", "optim.lr: Value 'much' is not a number"),
        ("optim.steps=1.5", "optim.steps: Value '1.5' of type 'float' is not a whole number"),
        ("data.flip=ja", "data.flip: Value 'ja' is neither true nor false"),
        ("out=", "out: has no value; give one"),
        ("precision=int8", "precision=int8 is not one of"),
        ("norm.kind=batch", "norm.kind=batch is not one of patch, step"),
        ("checkpoint.keep=0", "checkpoint.keep=0 must be at least 1"),
        ("optim.steps=0", "optim.steps=0 must be at least 1"),
        ("seed", "'seed' is not of the form key=value"),
        ("tiny.yaml", "not of the form key=value; a recipe is named by --config tiny.yaml"),
        ("seed=-1", "seed=-1 must be between 0 and 4294967295"),
        ("seed=4294967296", "seed=4294967296 must be between 0 and 4294967295"),
        ("model.depth=0", "model.depth=0 must be at least 1"),
        ("optim.lr=-1", "optim.lr=-1.0 must be at least 0"),
        ("optim.lr=nan", "optim.lr=nan must be at least 0"),
        ("optim.clip=0", "optim.clip=0.0 must be above 0"),
        (
            "optim.betas=[0.9]",
            r"optim.betas=\[0.9\] must be 2 numbers, each at least 0 and below 1",
        ),
        ("optim.betas=[0.9,1]", "optim.betas=1.0 must be at least 0 and below 1"),
        ("optim.warmup_epochs=inf", "optim.warmup_epochs=inf is not a finite number"),
        ("loss.weights.position=nan", "loss.weights.position=nan must be at least 0"),
        ("loss.weights=[1]", r"loss.weights=\[1\] must hold keys"),
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


def test_a_file_with_a_dotted_key_is_told_the_form(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("optim.lr: 0.3\n")
    with pytest.raises(
        UsageError, match=r"mine\.yaml: optim\.lr: in a YAML file write optim: \{lr: …\}"
    ):
        read("--config", str(recipe), *WORDS)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "\xff: {"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    recipe = tmp_path / "mine.yaml"
    recipe.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        read("--config", str(recipe), *WORDS)


def test_missing_values_and_files_are_named():
    with pytest.raises(UsageError, match=r"out is not set: add out=….* \(out: folder of the run"):
        read("store=s")
    with pytest.raises(UsageError, match="out and store are not set: add out=… store=…"):
        read()
    with pytest.raises(UsageError, match=r"no such file.* did you mean pretrain/small\.yaml"):
        read("--config", "pretrain/smal.yaml", *WORDS)


def test_the_resolved_recipe_reads_back_as_itself(tmp_path):
    config = read(*WORDS, "loss.weights.position=2", "data.zoom=[10,16]", "optim.clip=0.5")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert read("--config", str(path)) == config


def test_changed_keys_stand_beside_their_defaults():
    lines = list(changed_keys(read(*WORDS, "optim.clip=0.5", "data.zoom=[10,16]")))
    assert "optim.clip: 0.5 (default: null)" in lines
    assert "data.zoom: [10, 16] (default: [])" in lines
    assert not any(line.startswith(("out:", "optim.lr:")) for line in lines)


def test_differences_name_nested_keys():
    a, b = read(*WORDS), read(*WORDS, "optim.lr=1", "loss.weights.shape=2")
    assert differing_keys(to_dict(a), to_dict(a)) == []
    assert differing_keys(to_dict(a), to_dict(b)) == [
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


def test_help_shows_default_help_and_limits(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    lines = capsys.readouterr().out.splitlines()
    for start, end in (
        ("mask.kind=tube ", "one of tube, cube, random, future, motion"),
        ("mask.ratio=0.7 ", "share of the patches that are hidden; between 0 and 1"),
        ("optim.betas=[0.9, 0.95] ", "at least 0 and below 1"),
        ("data.root=null ", "folder of the video files, for data.frames=video"),
        ("out=… (must be given) ", "folder of the run"),
    ):
        assert [x for x in lines if x.strip().startswith(start) and x.endswith(end)], start


@pytest.mark.parametrize("schema", [PretrainConfig, FinetuneConfig, *SCORING])
def test_every_key_has_help_and_a_default_within_limits(schema):
    for key, value, limits in walk(schema()):
        assert limits.help, key
        if value != MISSING:
            for one in value if isinstance(value, list) else [value]:
                assert one is None or isinstance(one, dict) or limits.hold(one), key


def test_choices_are_the_names_of_the_registries():
    limits = {key: limits for key, _, limits in walk(PretrainConfig())}
    limits |= {key: limits for key, _, limits in walk(FinetuneConfig())}
    for key, registry in {
        "mask.kind": MASKS,
        "norm.kind": NORMS,
        "target.merge": MERGES,
        "model.size": SIZES,
        "decoder.kind": DECODERS,
        "loss.contents": [*GROUPS, *CONTENTS],
        "data.sampling": SAMPLINGS,
        "data.dataset": DATASETS,
    }.items():
        assert limits[key].names == tuple(registry), key


def test_the_environment_is_read_in_the_users_own_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "somewhere")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("out: ${oc.env:PLACE}\n")
    assert read("--config", str(recipe), "store=s").out == "somewhere"
    with pytest.raises(UsageError, match=r"out=\$\{oc.env:PLACE\} is not resolved"):
        merge(PretrainConfig, [("", {"store": "s", "out": "${oc.env:PLACE}"})])


@pytest.mark.parametrize("key", ["optim.steps", "precision", "optim.lr", "loss.weights.shape"])
def test_a_value_of_the_environment_is_never_shown(key, monkeypatch):
    monkeypatch.setenv("TOKEN", "-987654.5")
    with pytest.raises(UsageError) as error:
        read(*WORDS, f"{key}=${{oc.env:TOKEN}}")
    assert key in str(error.value) and "987654" not in str(error.value)


def test_a_missing_variable_is_named():
    with pytest.raises(UsageError, match="NO_SUCH_VARIABLE"):
        read(*WORDS, "optim.lr=${oc.env:NO_SUCH_VARIABLE}")


def test_errors_of_the_library_name_the_recipes_key():
    @named(ratio="mask.ratio", frames="model.frames")
    def fail(text):
        raise UsageError(text)

    with pytest.raises(UsageError, match=r"^mask\.ratio=2 of spec\.frames=none, my_frames=3$"):
        fail("ratio=2 of spec.frames=none, my_frames=3")
    with pytest.raises(UsageError, match=r"mask\.ratio=0\.001 hides 0"), named(ratio="mask.ratio"):
        hidden_count((8, 14, 14), 0.001)


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
    assert read("store=[~/a, b~]", "out=o").store == [f"{tmp_path}/a", "b~"]
