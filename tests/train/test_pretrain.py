"""The pre-training loop: what it writes, what it learns, what it refuses."""

import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stores import write_store

from mme_core import cli
from mme_core.clips.contents import content_sizes
from mme_core.errors import MMEError, StoreError, UsageError
from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.weights.run_folder import read_metrics
from mme_core.weights.save import save_weights
from preprocess.lock import StoreLock
from train import pretrain
from train.engine import checkpoint
from train.engine.distributed import Ranks
from train.engine.folder import write_config
from train.objective.reconstruction import Objective, build_model
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig, check_speeds
from train.recipes.scoring import EvaluateConfig
from train.scoring.knn import knn_accuracy

DECODER_TOKEN = "decoders.joint.mask_token"
CPU = Ranks(0, 1, torch.device("cpu"))


def read(store, out, *words):
    return load(
        PretrainConfig, ["--config", "tiny.yaml", f"store={store}", f"out={out}", *words], "", ""
    )


def run(store, out, *words):
    return pretrain.Pretraining(read(store, out, *words), CPU).run()


@pytest.fixture(scope="module")
def finished(demo_store, held_out_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    status = run(
        demo_store, out, f"val_store={held_out_store}", "eval.every=2", "checkpoint.every=4"
    )
    assert status == 0
    return out


def test_the_run_leaves_its_recipe_metrics_checkpoints_and_pictures(finished, demo_store):
    assert f"store: {demo_store}" in (finished / "config.yaml").read_text()
    rows = read_metrics(finished)
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 11))
    expected = {"step", "epoch", "loss", "position", "shape", "lr", "grad_norm", "clips_per_s"}
    assert expected | {"bad", "data_wait", "memory", "eta", "skipped"} == set(steps[0])
    assert steps[0]["loss"] == pytest.approx(steps[0]["position"] + steps[0]["shape"])
    assert steps[2]["epoch"] == pytest.approx(1)
    held_out = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in held_out] == [6, 10]
    assert {"val_position", "constant_position", "constant_loss", "knn"} < set(held_out[0])
    pictures = sorted(path.name for path in (finished / "pictures").iterdir())
    assert pictures == ["step-00000006-0.png", "step-00000010-0.png"]
    assert [p.name for p in checkpoint.checkpoints(finished)] == [
        "step-00000010.pt",
        "step-00000008.pt",
    ]


def test_a_checkpoint_is_plain_and_its_keys_are_the_bare_models(finished, demo_store):
    state = torch.load(checkpoint.checkpoints(finished)[0], weights_only=True)
    assert state["spec_hashes"] == [TargetStore(demo_store).spec.hash]
    assert state["config"]["model"]["depth"] == 2
    config = read(demo_store, finished)
    spec = TargetStore(demo_store).spec
    objective = Objective.of(config, spec, CPU.device, torch.float32)
    model = build_model(config, content_sizes(["position", "shape"], spec, objective.settings))
    model.load_state_dict(state["model"])


@pytest.mark.parametrize("of", [lambda out: out, lambda out: checkpoint.checkpoints(out)[0]])
def test_init_starts_from_weights_and_not_from_the_run(finished, demo_store, tmp_path, of):
    path = checkpoint.checkpoints(finished)[0]
    init = f"init={of(finished)}"
    assert run(demo_store, tmp_path, init, "optim.steps=1", "optim.lr=1e-9") == 0
    before = torch.load(path, weights_only=True)["model"]
    after = checkpoint.load_last(tmp_path, pytest.fail)
    assert after["step"] == 1
    for name, value in before.items():
        torch.testing.assert_close(after["model"][name], value, atol=1e-5, rtol=1e-4)


def test_init_takes_an_encoder_alone(finished, demo_store, tmp_path, capsys):
    learnt = checkpoint.load_last(finished, pytest.fail)["model"]
    encoder = {name: value for name, value in learnt.items() if name.startswith("encoder.")}
    path = tmp_path / "encoder.safetensors"
    save_weights(path, encoder, frames=8, image_size=48)
    words = [f"init={path}", "optim.steps=1", "optim.lr=1e-9"]
    assert run(demo_store, tmp_path / "run", *words) == 0
    after = checkpoint.load_last(tmp_path / "run", pytest.fail)["model"]
    for name, value in encoder.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(after[DECODER_TOKEN], learnt[DECODER_TOKEN], atol=1e-5)
    assert "encoder.safetensors: " in capsys.readouterr().out


def test_init_takes_a_whole_model_as_safetensors(finished, demo_store, tmp_path, capsys):
    learnt = checkpoint.load_last(finished, pytest.fail)["model"]
    save_file(learnt, tmp_path / "whole.safetensors")
    init = f"init={tmp_path / 'whole.safetensors'}"
    assert run(demo_store, tmp_path / "run", init, "optim.steps=1", "optim.lr=1e-9") == 0
    after = checkpoint.load_last(tmp_path / "run", pytest.fail)["model"]
    torch.testing.assert_close(after[DECODER_TOKEN], learnt[DECODER_TOKEN], atol=1e-5, rtol=1e-4)
    assert f"whole.safetensors: {len(learnt)} tensors" in capsys.readouterr().out


def test_the_loss_falls(demo_store, tmp_path):
    words = ["optim.steps=60", "optim.lr=0.2", "log.every=60", "norm.floor=0.1", "data.flip=false"]
    assert run(demo_store, tmp_path, *words, "log.every=1") == 0
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "pretrain/release.yaml", "decoder.width=48", "decoder.heads=3"],
        ["--config", "pretrain/plus.yaml"],
        ["loss.contents=[pixel,position]", "loss.weights.pixel=0.5", "decoder.kind=separate"],
        ["target.merge=max", "norm.kind=length", "mask.kind=motion"],
        ["norm.kind=none", "data.zoom=[2,4]", "mask.kind=cube", "optim.clip=0.1"],
        ["precision=bf16"],
    ],
)
def test_other_recipes_run(demo_store, held_out_store, tmp_path, words):
    words = [*words, "optim.steps=2", "data.shuffle_frames=true", f"val_store={held_out_store}"]
    assert run(demo_store, tmp_path, *words) == 0
    assert np.isfinite([row["loss"] for row in read_metrics(tmp_path) if "loss" in row]).all()
    assert list((tmp_path / "pictures").glob("*.png"))


@pytest.mark.parametrize(("name", "warned"), [("", True), ("avx512_bf16", False), (None, False)])
def test_bf16_without_instructions_is_warned_of(
    demo_store, tmp_path, monkeypatch, capsys, name, warned
):
    monkeypatch.setattr("train.engine.loop.bf16_instructions", lambda: name)
    assert run(demo_store, tmp_path, "optim.steps=1", "precision=bf16") == 0
    assert ("this CPU has no bf16 instructions" in capsys.readouterr().out) == warned


def test_bf16_on_a_cpu_leaves_the_slow_attention_kernel_out(demo_store, tmp_path, monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    assert run(demo_store, tmp_path, "optim.steps=1", "precision=bf16") == 0


def test_a_run_reports_its_loader_and_profiles_steps(demo_store, tmp_path):
    words = ["optim.steps=4", "profile=2", "data.workers=1"]
    assert run(demo_store, tmp_path, *words) == 0
    assert all(0 <= row["ready"] <= 4 for row in read_metrics(tmp_path))
    assert {path.name for path in (tmp_path / "profile").iterdir()} == {"trace.json", "kernels.txt"}


def test_evaluation_does_not_change_training_draws(demo_store, held_out_store, tmp_path):
    words = ["data.shuffle_frames=true", f"val_store={held_out_store}", "eval.panels=0"]
    for every in (0, 1):
        assert run(demo_store, tmp_path / str(every), *words, f"eval.every={every}") == 0
    rows = [read_metrics(tmp_path / str(every)) for every in (0, 1)]
    losses = [[row["loss"] for row in part if "loss" in row] for part in rows]
    assert losses[0] == losses[1]


def test_nearest_neighbours_vote_by_similarity():
    rng = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 8) * 5
    labels = torch.arange(3).repeat(20)
    features = centres[labels] + torch.randn(60, 8, generator=rng)
    assert knn_accuracy(features, labels, features + 0.1, labels, k=5) == 1.0
    assert knn_accuracy(features, labels, features, (labels + 1) % 3, k=5) == 0.0


# What is refused


def refused(store, out, *words):
    with pytest.raises(MMEError) as caught:
        run(store, out, *words)
    assert not out.exists(), "a run that is refused writes nothing"
    return caught.value


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("data.root=/", UsageError, "data.root=/ is not read"),
        ("data.stride=2", StoreError, "spec.stride=4 does not fit the recipe's data.stride=2"),
        ("target.points=1", StoreError, "spec.points=4 does not fit"),
        ("target.length=7", UsageError, "target.length=7"),
        ("target.length=0", UsageError, "target.length=0"),
        ("model.patch=8", StoreError, "spec.patch=16 does not fit"),
        ("model.image_size=80", UsageError, "model.image_size=80"),
        ("model.image_size=0", UsageError, "model.image_size=0 must be at least 1"),
        ("model.frames=7", UsageError, "model.frames=7 must be"),
        ("data.batch_size=8", UsageError, "6 videos do not fill one step.*lower data.batch_size"),
        ("data.zoom=[2,99]", UsageError, "no canvas in .* has room for 99 patches.*at most 4"),
        ("data.crops=3", UsageError, "data.crops=3 must divide data.batch_size=2"),
        ("norm.camera=true", UsageError, "norm.camera.*spec.camera=homography"),
        ("loss.contents=[colour]", UsageError, "loss.contents=colour is not one of trajectory"),
        ("loss.weights.shape=-1", UsageError, "loss.weights.shape=-1.0 must be at least 0"),
        ("mask.ratio=1", UsageError, "mask.ratio=1"),
        ("init=nowhere.pt", UsageError, "nowhere.pt: no such file of weights"),
        ("val_store=nowhere", StoreError, "nowhere does not exist"),
        ("precision=fp16", UsageError, "precision=fp16 needs a GPU"),
    ],
)
def test_a_recipe_that_does_not_fit_the_store_is_refused(demo_store, tmp_path, word, kind, message):
    error = refused(demo_store, tmp_path / "run", word)
    assert isinstance(error, kind)
    with pytest.raises(kind, match=message):
        raise error


@pytest.mark.parametrize("content", ["trajectory_sampled", "shape_sampled", "mbh_sampled"])
def test_contents_of_the_stores_own_stride_refuse_other_speeds(demo_store, tmp_path, content):
    words = [f"loss.contents=[flow,{content}]", "data.speeds=[1,2]"]
    error = refused(demo_store, tmp_path / "run", *words)
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"loss.contents={content} is computed for frames at the store's own stride, and "
        "data.speeds=[1, 2] draws others: use data.speeds=[], or other contents"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["loss.contents=[trajectory_sampled,mbh_sampled]", "data.speeds=[1]"],
        ["loss.contents=[trajectory,flow,hof,hog,hog_sampled,mbh_every]", "data.speeds=[1,2]"],
    ],
)
def test_other_contents_and_the_stores_own_speed_are_accepted(demo_store, tmp_path, words):
    check_speeds(read(demo_store, tmp_path, *words))


def test_a_store_of_short_videos_alone_trains_with_a_warning(demo_store, tmp_path, capsys):
    assert run(demo_store, tmp_path / "run", "model.frames=64", "optim.steps=1") == 0
    warning = "every video of .* is shorter than a clip of model.frames=64: .* use fewer frames"
    assert re.search(warning, capsys.readouterr().out)
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "run"))


def test_held_out_videos_that_are_trained_on_are_refused(demo_store, tmp_path):
    error = refused(demo_store, tmp_path / "run", f"val_store={demo_store}")
    assert str(error).endswith("name other videos by val_store")


def test_a_held_out_store_made_otherwise_is_refused(demo_store, tmp_path):
    video = TargetStore(demo_store).videos[0]
    spec = TargetSpec(short_side=64, long_side=80, flow="dis-ultrafast", length=3)
    root = demo_store.parent / "videos" / video["id"]
    other = write_store(tmp_path / "other", [root], spec)
    error = refused(demo_store, tmp_path / "run", f"val_store={other}")
    assert f"spec.length: 3 in {other}, 6 in {demo_store}: make the held-out" in str(error)


def test_a_store_that_is_being_written_is_refused(demo_store, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    with StoreLock(open_place(store)):
        errors = [
            refused(store, tmp_path / "run"),
            refused(demo_store, tmp_path / "run", f"val_store={store}"),
        ]
    for error in errors:
        assert f"{store} is being written" in str(error)


@pytest.mark.parametrize("word", ["resume=auto", "resume=force"])
def test_a_folder_of_another_command_is_refused(demo_store, tmp_path, word):
    write_config(EvaluateConfig(init="none", out=str(tmp_path)))
    with pytest.raises(UsageError, match=r"output of `mme evaluate`"):
        run(demo_store, tmp_path, word)


def test_the_command_answers_mistakes_in_one_line_and_status_2(capsys, tmp_path):
    assert cli.main(["pretrain", "optim.lrr=1"]) == 2
    assert "optim.lrr is not a key of this recipe; the nearest is optim.lr" in (
        capsys.readouterr().err
    )
    assert cli.main(["pretrain", "store=nowhere", f"out={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mme pretrain: nowhere does not exist") and error.count("\n") == 1


@pytest.mark.slow
def test_a_compiled_model_learns_the_same_and_saves_the_same_keys(demo_store, tmp_path):
    assert run(demo_store, tmp_path / "eager") == 0
    assert run(demo_store, tmp_path / "compiled", "compile=true") == 0
    eager, compiled = (
        checkpoint.load_last(tmp_path / name, pytest.fail)["model"]
        for name in ("eager", "compiled")
    )
    assert eager.keys() == compiled.keys()
    losses = [[row["loss"] for row in read_metrics(tmp_path / n)] for n in ("eager", "compiled")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
