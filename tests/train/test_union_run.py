"""`mme pretrain` on several stores."""

import shutil

import pytest
import torch

from mme_core.errors import UsageError
from mme_core.store import TargetStore
from mme_core.weights.run_folder import read_metrics
from train import pretrain
from train.engine import checkpoint
from train.engine.distributed import Ranks
from train.engine.loop import Loop
from train.pretrain import Pretraining
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig


def words(stores, out, *more):
    named = ",".join(map(str, stores))
    fixed = [
        "log.every=1",
        "checkpoint.every=3",
        "optim.steps=8",
        "data.mix=[1,3]",
        "eval.panels=0",
    ]
    return ["--config", "tiny.yaml", f"store=[{named}]", f"out={out}", *fixed, *more]


def final(out):
    state = checkpoint.load_last(out, pytest.fail)
    return state["step"], state["model"]


def test_union_run_resumes_exactly(demo_store, held_out_store, tmp_path, monkeypatch):
    other = shutil.copytree(demo_store, tmp_path / "other")
    stores = [demo_store, other]
    assert pretrain.main(words(stores, tmp_path / "whole", f"val_store={held_out_store}")) == 0
    assert "val_loss" in read_metrics(tmp_path / "whole")[-1]

    step = Loop._step

    def dies(loop, batches):
        if loop.done == 5:
            raise KeyboardInterrupt
        return step(loop, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", dies)
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(words(stores, tmp_path / "killed"))
    assert pretrain.main(words(stores, tmp_path / "killed")) == 0
    (a, one), (b, two) = final(tmp_path / "whole"), final(tmp_path / "killed")
    assert a == b == 8 and all(torch.equal(one[name], two[name]) for name in one)


def test_mend_names_the_store_of_each_video(demo_store, held_out_store, tmp_path):
    config = load(PretrainConfig, words([demo_store, held_out_store], tmp_path / "out"), "", "")
    run = Pretraining(config, Ranks(0, 1, torch.device("cpu")))
    videos = len(TargetStore(demo_store).videos)
    assert run._mend([0, videos]) == (
        f"run `mme repair {demo_store}`, which mends shards/00000.zarr; "
        f"run `mme repair {held_out_store}`, which mends shards/00000.zarr"
    )
    assert run._mend([videos]).startswith(f"run `mme repair {held_out_store}`")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.mix=[1]"], "data.mix=.* must have one weight for each"),
        (["store=[]"], r"store=\[\] must be a path or URL"),
        (["data.shard_shuffle=true"], "leave data.shard_shuffle out"),
    ],
)
def test_wrong_stores_and_weights_are_named(demo_store, held_out_store, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        pretrain.main(words([demo_store, held_out_store], tmp_path / "out", *changes))
