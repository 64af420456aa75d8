"""The evaluations of pre-training on held-out videos."""

import signal

import pytest
import torch
from runs import CPU

from mme_core.errors import UsageError
from mme_core.store import TargetStore
from mme_core.tokens import take_tokens
from train.objective.reconstruction import Objective, build_model
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig
from train.scoring import heldout
from train.scoring.heldout import HeldOut, clip_dataset, held_out_loss
from train.scoring.pixels import to_pixels


@pytest.fixture
def pair(demo_store, held_out_store):
    return demo_store, held_out_store


def held_out_parts(pair, tmp_path, *words):
    given = ["--config", "tiny.yaml", f"store={pair[0]}", f"val_store={pair[1]}", *words]
    config = load(PretrainConfig, [*given, f"out={tmp_path}"], "", "")
    store = TargetStore(pair[0])
    objective = Objective.of(config, store.spec, CPU.device, torch.float32)
    return HeldOut(config, config.val_store, store, objective, CPU), objective, config


def test_the_best_constant_is_found_and_no_other_is_better(pair, tmp_path):
    held_out, objective, _ = held_out_parts(pair, tmp_path)
    batches = list(held_out._batches(held_out.val, 100))
    assert sum(len(batch["video"]) for batch in batches) == 6
    questions = [objective.ask(batch) for batch in batches]
    parts = [[take_tokens(x, q.hidden) for x in q.targets["position"]] for q in questions]
    target, valid = (torch.cat(column).flatten(0, 1) for column in zip(*parts))
    mean = (target * valid).sum(0) / valid.sum(0)

    def loss(vector):
        return float(((target - vector).square() * valid).sum() / valid.numel())

    class Constant(torch.nn.Module):
        def predict(self, patches, visible, hidden):
            shape = hidden.shape
            return {n: mean[:1].expand(*shape, size) for n, size in objective.sizes.items()} | {
                "position": mean.expand(*shape, -1)
            }

    row = held_out_loss(Constant(), objective, batches, CPU)
    assert row["constant_position"] == pytest.approx(loss(mean), rel=1e-5)
    assert row["val_position"] == pytest.approx(row["constant_position"], rel=1e-5)
    assert row["constant_position"] < loss(mean + 0.01)
    assert row["val_loss"] == pytest.approx(row["val_position"] + row["val_shape"])


def test_the_held_out_clips_are_the_same_every_time(pair, tmp_path):
    held_out, objective, config = held_out_parts(pair, tmp_path, "eval.clips=4")
    model = build_model(config, objective.sizes)
    losses = [
        held_out_loss(model, objective, held_out._batches(held_out.val, 4), CPU) for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_as_many_held_out_clips_are_read_as_the_recipe_says(pair, tmp_path):
    taken = []
    for size in (1, 2, 3):
        held_out = held_out_parts(pair, tmp_path, f"data.batch_size={size}")[0]
        batches = list(held_out._batches(held_out.val, 4))
        taken.append(torch.cat([batch["video"] for batch in batches]).tolist())
    assert len(taken[0]) == 4 and taken[0] == taken[1] == taken[2]


def test_ctrl_c_as_the_held_out_workers_end_is_heard(pair, tmp_path, monkeypatch):
    class Ending(list):
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    held_out, *_ = held_out_parts(pair, tmp_path)
    monkeypatch.setattr(heldout, "make_clip_loader", lambda *_, **__: Ending())
    with pytest.raises(KeyboardInterrupt):
        list(held_out._batches(held_out.val, 4))


def test_a_picture_that_cannot_be_written_is_an_error(pair, tmp_path):
    held_out, objective, config = held_out_parts(pair, tmp_path)
    (tmp_path / "pictures" / "step-00000003-0.png").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"step-00000003-0\.png"):
        held_out._draw(build_model(config, objective.sizes), 3, log=None)


@pytest.mark.parametrize("norm", ["patch", "step", "length", "scale", "none"])
def test_true_targets_are_drawn_as_the_true_motion(pair, tmp_path, norm):
    held_out, objective, _ = held_out_parts(pair, tmp_path, f"norm.kind={norm}")
    batch = next(held_out._batches(held_out.val, 2))
    plain = held_out_parts(pair, tmp_path, "norm.kind=none")[1]
    true = plain.ask(batch).targets["position"][0]
    drawn = to_pixels(
        objective.ask(batch).targets["position"][0], true, objective.settings, objective.spec.points
    )
    torch.testing.assert_close(drawn, true, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loss.contents=[pixel,pixel]", r"^loss\.contents=\['pixel', 'pixel'\] names pixel twice"),
        ("loss.weights.foo=2", r"^loss\.weights=\{'foo': 2\.0\}: 'foo' is not a content"),
        ("loss.weights.hog=2", r"^loss\.weights=.* names hog, which loss\.contents=.* lacks$"),
        (
            "loss.contents=[mbh_sampled]",
            r"^loss\.contents needs spec\.cells=mbh: .* does not hold .* with spec\.cells=mbh$",
        ),
    ],
)
def test_wrong_contents_are_named_by_the_recipes_keys(demo_store, tmp_path, word, message):
    words = ["--config", "tiny.yaml", f"store={demo_store}", f"out={tmp_path}", word]
    with pytest.raises(UsageError, match=message):
        clip_dataset(TargetStore(demo_store), load(PretrainConfig, words, "", ""), training=True)
