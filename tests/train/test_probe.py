import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from labelled import with_unfit_stride, write_set
from torch import nn
from torch.nn import functional as F

from mme_core.encoder import random_encoder
from mme_core.errors import MMEError, UsageError
from mme_core.model import build_pretraining_model
from train import probe
from train.engine import folder
from train.engine.distributed import Ranks
from train.scoring import frozen
from train.scoring.frozen import TokenFile, Tokens
from train.scoring.probe_selection import draw_shots, stratified_split
from train.scoring.probes import (
    AttentiveProbes,
    LinearProbes,
    SweepAdamW,
    Trial,
    accuracies,
    train_probes,
    trials,
)

MODEL = ["model.size=tiny", "model.depth=1", "model.frames=4", "model.image_size=32"]


# the sweep


def test_each_trial_of_a_sweep_learns_as_it_would_alone():
    torch.manual_seed(0)
    features, labels = torch.randn(40, 6), torch.randint(3, (40,))
    chosen = trials([1e-2, 1e-3], [0.0, 0.5])
    assert [tuple(vars(trial).values()) for trial in chosen] == [
        (1e-2, 0.0),
        (1e-2, 0.5),
        (1e-3, 0.0),
        (1e-3, 0.5),
    ]
    probes = LinearProbes(4, 6, 3)
    start = probes.weight.detach().clone()
    train_probes(probes, lambda i: features[i], labels, chosen, epochs=3, batch_size=40, seed=0)
    for number, trial in enumerate(chosen):
        head = nn.Linear(6, 3)
        head.weight.data, head.bias.data = start[number].T.clone(), torch.zeros(3)
        groups = [
            {"params": [head.weight], "weight_decay": trial.weight_decay},
            {"params": [head.bias], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=trial.lr)
        norm = nn.BatchNorm1d(6, affine=False)
        for step in range(3):
            for group in optimizer.param_groups:
                group["lr"] = trial.lr * 0.5 * (1 + np.cos(np.pi * step / 3))
            F.cross_entropy(head(norm(features)), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(probes.weight[number], head.weight.T, atol=1e-5, rtol=0)
        torch.testing.assert_close(probes.bias[number, 0], head.bias, atol=1e-5, rtol=0)


def test_statistics_for_testing_are_those_of_the_features():
    features = 3 + 0.2 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    probes, labels = LinearProbes(1, 6, 3), torch.zeros(40, dtype=torch.int64)
    one = trials([1e-3], [0.0])
    train_probes(probes, lambda i: features[i], labels, one, epochs=2, batch_size=40, seed=0)
    torch.testing.assert_close(probes.norm.running_mean, features.mean(0))
    torch.testing.assert_close(probes.norm.running_var, features.var(0))


def test_attentive_probe_is_cross_attention_of_one_query():
    """The folded query and the late value projection equal torch's multi-head attention."""
    torch.manual_seed(0)
    width, heads = 8, 2
    probes = AttentiveProbes(1, width, 3, heads)
    tokens = torch.randn(5, 7, width)
    attention = nn.MultiheadAttention(width, heads, batch_first=True)
    query, key, value = torch.randn(width), torch.randn(width, width), torch.randn(width, width)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([torch.eye(width), key, value]))
        attention.in_proj_bias.zero_()
        attention.out_proj.weight.copy_(torch.eye(width))
        attention.out_proj.bias.zero_()
        per_head = width // heads
        for head in range(heads):
            part = slice(head * per_head, (head + 1) * per_head)
            probes.query[0, head] = query[part] @ key[part] / per_head**0.5
            probes.value[0, head] = value[part].T
        normed = F.layer_norm(tokens, (width,))
        pooled = attention(query.expand(5, 1, -1), normed, normed)[0][:, 0]
        hidden = F.gelu(F.layer_norm(pooled, (width,)) @ probes.hidden[0])
        pooled = pooled + hidden @ probes.out[0]
        want = F.layer_norm(pooled, (width,)) @ probes.head[0]
        torch.testing.assert_close(probes(tokens)[0], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_all_but_biases_decay(heads):
    probes = AttentiveProbes(2, 4, 3, heads)
    for parameter in probes.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    SweepAdamW(probes, [Trial(0.1, 0.5)] * 2).step(1.0)
    kept = {name for name, parameter in probes.named_parameters() if (parameter == 1).all()}
    assert kept == {"value_bias", "hidden_bias", "out_bias", "head_bias"}


def test_accuracies_of_trials():
    class Fixed(nn.Module):
        def forward(self, rows):
            return torch.stack([F.one_hot(rows, 3), F.one_hot((rows + 1) % 3, 3)]).float()

    labels = torch.tensor([0, 1, 2, 0, 1])
    found = accuracies(Fixed(), lambda index: labels[index], labels, batch_size=2)
    assert found.tolist() == [1.0, 0.0]


# what chooses


def test_the_split_takes_a_share_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 5, 2])
    split = stratified_split(labels, 0.2, seed=0)
    assert np.bincount(labels[split.choose]).tolist() == [2, 1, 1]
    together = torch.cat([split.learn, split.choose]).sort().values
    assert together.tolist() == list(range(17))


def test_a_large_share_leaves_every_class_videos_to_learn_from():
    labels = np.repeat([0, 1, 2], [10, 2, 1])
    split = stratified_split(labels, 0.99, seed=0)
    assert np.bincount(labels[split.learn]).tolist() == [1, 1, 1]


def test_shots_are_of_each_class_and_the_rest_chooses():
    labels = np.repeat([0, 1], [6, 4])
    split = draw_shots(labels, 3, draw=1, seed=0)
    assert np.bincount(labels[split.learn]).tolist() == [3, 3]
    assert len(split.choose) == 4
    with pytest.raises(UsageError, match="class number 1 has 4 training videos"):
        draw_shots(labels, 4, draw=1, seed=0)


def test_shots_follow_the_draw_and_the_seed():
    labels = np.zeros(1000, int)
    drawn = [draw_shots(labels, 3, draw, seed).learn for draw, seed in ((0, 0), (1, 0), (0, 1))]
    assert len(torch.cat(drawn).unique()) == 9


# the command


def words(root, out, *more):
    fixed = ["device=cpu", "data.dataset=folder", "data.workers=0", "data.stride=1", "epochs=10"]
    return [*fixed, f"data.root={root}", f"out={out}", *more]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """All probes of a set whose classes differ in colour, with random and other random weights."""
    folder = tmp_path_factory.mktemp("probe")
    root = write_set(folder / "set", train=12, val=4, coloured=True)
    torch.manual_seed(1)
    model = build_pretraining_model("tiny", depth=1, frames=4, image_size=32)
    recipe = {"model": {"frames": 4, "image_size": 32}}
    torch.save({"model": model.state_dict(), "config": recipe}, folder / "w.pt")
    extra = [f"init={folder / 'w.pt'}", "shots=[2]", "shot_draws=2", "neighbours=[1,3]"]
    extra += ["lrs=[5e-3,1e-3]", "weight_decays=[0.01,0.1]", "epochs=30"]
    assert probe.main(words(root, folder / "run", *extra)) == 0
    return folder, json.loads((folder / "run" / "probe.json").read_text())


def test_every_probe_stands_beside_random_weights_and_still_frames(report):
    folder, found = report
    assert (found["training_videos"], found["test_videos"], found["classes"]) == (24, 8, 2)
    rows = [(row["weights"], row["clip"]) for row in found["rows"]]
    weights = str(folder / "w.pt")
    assert rows == [
        (weights, "video"),
        (weights, "still frame"),
        ("random weights", "video"),
        ("random weights", "still frame"),
    ]
    for row in found["rows"]:
        assert {"linear", "attentive", "knn", "2-shot"} < set(row)
        assert len(row["linear"]["trials"]) == len(row["attentive"]["trials"]) == 4
        assert [trial["k"] for trial in row["knn"]["trials"]] == [1, 3]
        assert len(row["2-shot"]) == 2


def test_colours_are_told_apart_by_every_probe(report):
    first = report[1]["rows"][0]
    assert first["linear"]["accuracy"] == first["knn"]["accuracy"] == 1.0
    assert max(trial["test"] for trial in first["attentive"]["trials"]) == 1.0


def test_the_configuration_names_the_model_that_was_measured(report):
    written = yaml.safe_load((report[0] / "run" / "config.yaml").read_text())["model"]
    assert (written["size"], written["depth"], written["image_size"]) == ("tiny", 1, 32)


def test_a_model_key_that_the_weights_contradict_is_refused_at_its_default_too(report):
    again = ["--config", str(report[0] / "run" / "config.yaml"), "model.size=base"]
    with pytest.raises(
        UsageError, match=r"^model\.size=base: .* has model\.size=tiny; leave it out"
    ):
        probe.main(again)


def test_the_tokens_do_not_stay_on_the_disk(report):
    left = {path.name for path in (report[0] / "run").iterdir()}
    assert left == {"config.yaml", "probe.json", ".lock"}


def test_tokens_go_when_a_probe_fails(tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", train=2, val=1)

    def interrupted(self, kind):
        assert len(list((tmp_path / "run").glob(".tokens-*"))) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(probe.Prober, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe.main(words(root, tmp_path / "run", "init=none", *MODEL))
    assert not list((tmp_path / "run").glob(".tokens-*"))


def test_tokens_of_a_killed_run_take_no_room(tmp_path, monkeypatch):
    path = tmp_path / "tokens"
    path.write_bytes(b"of another run")

    def disk_usage(_folder):
        assert not path.exists()
        return SimpleNamespace(free=10**9)

    monkeypatch.setattr(frozen.shutil, "disk_usage", disk_usage)
    TokenFile(path, random_encoder(0, "tiny", depth=1, frames=4, image_size=32, patch=16)).create(1)


def test_a_pipe_gets_a_line_for_each_row(report, capsys):
    probe.show(report[1])
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("8 test videos, 24 training videos, 2 classes")
    assert head.split("\t")[:3] == ["weights", "clip", "linear"]
    assert lines[0].split("\t")[1:3] == ["video", "100.0%"] and len(lines) == 4


def test_rows_of_still_frames_are_of_still_frames(tmp_path, capsys, monkeypatch):
    seen = []

    def extract(backbone, source, plan, *ranks, **how):
        seen.append(plan.still)
        return frozen.extract_set(backbone, source, plan, *ranks, **how)

    monkeypatch.setattr(probe, "extract_set", extract)
    root = write_set(tmp_path / "set", train=4, val=2)
    extra = ["init=none", *MODEL, "probes=[knn]", "neighbours=[1]", "--json"]
    assert probe.main(words(root, tmp_path / "run", *extra)) == 0
    report = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert [row["clip"] for row in report["rows"]] == ["video", "still frame"]
    assert seen == [False, False, True, True]  # training and test videos of each row


def test_too_little_disk_for_the_tokens_is_said_before(tmp_path, monkeypatch):
    backbone = random_encoder(0, "tiny", depth=1, frames=4, image_size=32, patch=16)
    tokens = TokenFile(tmp_path / "tokens", backbone)
    with pytest.raises(MMEError, match=r"take .* GB.*probes=\[linear,knn\]"):
        tokens.create(10**12)


def test_a_second_probe_in_a_folder_is_refused(labelled_set, tmp_path):
    with (
        folder.lock(tmp_path, Ranks(0, 1, torch.device("cpu")), pytest.fail),
        pytest.raises(UsageError, match="is in use by another run"),
    ):
        probe.main(words(labelled_set, tmp_path, "init=none", *MODEL))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["probes=[linear,magic]"], "probes=magic is not one of linear, attentive, knn"),
        (["choice_share=1"], "choice_share=1"),
        (["lrs=[]"], r"lrs=\[\] must name at least one"),
        (["neighbours=[0]"], "neighbours=0 must be at least 1"),
        (["shots=[0]"], "shots=0 must be at least 1"),
        (["batch_size=1"], "batch_size=1 must be at least 2"),
        (["epochs=0"], "epochs=0 must be at least 1"),
        (["attention_heads=5"], "attention_heads=5 must divide the encoder's width of 192"),
        (["view.clips=0"], "view.clips=0 must be at least 1"),
        (["data.sampling=sparse"], "data.sampling=sparse is not one of"),
        (["init=/nowhere"], "no such file of weights"),
    ],
)
def test_wrong_input_is_explained(labelled_set, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        probe.main(words(labelled_set, tmp_path, "init=none", *MODEL, *change))


def test_too_few_videos_for_the_shots_are_refused_before_features(
    labelled_set, tmp_path, monkeypatch
):
    monkeypatch.setattr(probe, "probe_all", lambda *_: pytest.fail("features were extracted"))
    with pytest.raises(UsageError, match="shots=100: class number 0 has"):
        probe.main(words(labelled_set, tmp_path, "init=none", *MODEL, "shots=[1,100]"))


def test_test_videos_of_an_unfit_stride_are_refused_first(labelled_set, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "open_sources", with_unfit_stride(probe.open_sources))
    monkeypatch.setattr(probe, "extract_set", lambda *_, **__: pytest.fail("features were made"))
    with pytest.raises(UsageError, match=r"data\.stride=2 cannot be read from a store"):
        probe.main(words(labelled_set, tmp_path, "init=none", *MODEL, "data.stride=2"))


def test_videos_that_cannot_be_read_are_named(tmp_path, capsys):
    root = write_set(tmp_path / "set", train=2, val=2)
    (root / "val" / "left" / "0.mp4").write_bytes(b"no video")
    extra = ["init=none", *MODEL, "probes=[knn]", "baselines=false"]
    assert probe.main(words(root, tmp_path / "run", *extra)) == 0
    found = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert found["test_videos"] == 3
    assert [video for video, _ in found["not_read"]] == ["val/left/0.mp4"]
    assert "1 video not read" in " ".join(capsys.readouterr().out.split())


def test_one_training_video_a_class_cannot_choose(tmp_path):
    root = write_set(tmp_path / "set", train=1, val=1)
    with pytest.raises(UsageError, match="each class needs at least two"):
        probe.main(words(root, tmp_path / "run", "init=none", *MODEL, "probes=[knn]"))


def test_temporal_probe_reads_each_tubelets_mean(tmp_path):
    encoder = random_encoder(0, "tiny", depth=1, frames=4, image_size=32, patch=16)
    file = TokenFile(tmp_path / "tokens", encoder)
    file.create(3)
    array = file.open(3)
    array[:] = np.random.default_rng(0).normal(size=array.shape)
    means = Tokens(file, np.array([0, 2])).tubelet_means()
    assert means.shape == (2, 2 * 192)
    np.testing.assert_allclose(means[1, 192:], array[2, 4:].astype(np.float32).mean(0), atol=1e-6)
