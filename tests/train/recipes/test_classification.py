"""The recipes of fine-tuning that come with the package."""

import subprocess

import pytest

from mme_core.errors import UsageError
from train import finetune
from train.recipes.classification import SplitDataConfig, check_both
from train.recipes.pretraining import PretrainConfig

FOLDER = finetune.loading.RECIPES / "finetune"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_complete(path):
    load = finetune.loading.load
    config = load(finetune.FinetuneConfig, ["--config", str(path), "init=x", "out=y"], "", "")
    finetune.check(config)
    assert not (path.stem in ("ssv2", "tennis7", "demo") and config.augment.flip)


@pytest.mark.parametrize("name", ["demo", "tennis7"])
def test_small_recipes_have_the_model_of_their_pretraining(name):
    load, shared = finetune.loading.load, ("size", "depth", "frames", "image_size", "patch")
    words = ["out=y", "store=s"]
    after = load(
        finetune.FinetuneConfig, ["--config", f"finetune/{name}.yaml", "init=x", *words], "", ""
    )
    before = load(PretrainConfig, ["--config", f"pretrain/{name}.yaml", *words], "", "")
    for key in shared:
        assert getattr(after.model, key) == getattr(before.model, key), key


@pytest.mark.parametrize(
    ("dataset", "store", "val_store", "message"),
    [
        (
            None,
            None,
            None,
            r"^give .* store=… \(and val_store=…\) or as data\.dataset=… data\.root=…$",
        ),
        (None, None, "v", "^give the labelled videos either"),
        ("folder", "s", "v", "^give the labelled videos either"),
        ("folder", None, "v", "^give the labelled videos either"),
        (None, "s", None, "^val_store is not set"),
    ],
)
def test_labelled_videos_come_from_stores_or_from_a_data_set(dataset, store, val_store, message):
    with pytest.raises(UsageError, match=message):
        check_both(SplitDataConfig(dataset=dataset), store, val_store)


def test_both_stores_or_a_data_set_are_taken():
    check_both(SplitDataConfig(), "s", "v")
    check_both(SplitDataConfig(dataset="folder"), None, None)


PUBLISHED = {  # epochs, lr, test clips, accumulation in the authors' scripts
    "k400": (75, 1e-3, 7, 1),
    "ssv2": (30, 5e-4, 2, 1),
    "ucf101": (100, 1e-3, 10, 4),
    "hmdb51": (100, 1e-3, 10, 4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_the_authors(name):
    epochs, lr, clips, accumulate = PUBLISHED[name]
    words = ["--config", f"finetune/{name}.yaml", "init=x", "out=y"]
    config = finetune.loading.load(finetune.FinetuneConfig, words, "", "")
    optim, augment = config.optim, config.augment
    assert (optim.epochs, optim.lr, optim.warmup_epochs) == (epochs, lr, 5)
    assert (optim.layer_decay, optim.weight_decay, optim.accumulate) == (0.75, 0.05, accumulate)
    assert optim.betas == [0.9, 0.999]
    assert (config.eval.clips, config.eval.crops) == (clips, 3)
    assert (config.model.size, config.model.frames, config.model.drop_path) == ("base", 16, 0.1)
    assert config.data.crops == 2
    assert (augment.mixup, augment.cutmix, augment.smoothing, augment.erase) == (0.8, 1, 0.1, 0.25)
    assert augment.rand_augment == "rand-m7-n4-mstd0.5-inc1"
    assert augment.scale == [0.25, 1.0]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (["DATASET=k400", "ROOT=/d"], 'data.dataset=k400 "data.root=/d" "out=runs/k400-finetune"'),
        (["STORE=a", "VAL_STORE=b"], 'data.dataset=null "store=a" "val_store=b" "out=runs/demo'),
        (
            ["INIT=none", "NPROC=2"],
            '--nproc-per-node=2 --no-python .venv/bin/mme finetune --config "finetune/',
        ),
    ],
)
def test_make_names_the_command(variables, words):
    repository = finetune.loading.RECIPES.parents[1]
    command = ["make", "-n", "-C", str(repository), "finetune", *variables]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert words in done.stdout
