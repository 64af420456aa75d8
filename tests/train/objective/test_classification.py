import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mme_core.errors import UsageError
from mme_core.model import build_classifier
from train.objective.classification import ClassifierStep, Mixing, build, build_mixup, mix
from train.recipes.classification import AugmentConfig, FinetuneConfig
from train.recipes.loading import load


def pairs(labels):
    clip = torch.zeros(len(labels), 3, 2, 8, 8)
    for number in range(len(labels)):
        clip[number] = number + 1.0
    return clip, torch.tensor(labels)


def test_mixup_targets_by_hand():
    mixup = build_mixup(0.8, 0.0, 0.1, 4, 2)
    np.random.seed(0)
    np.random.rand()  # timm's draw whether to mix at all
    lam = np.random.beta(0.8, 0.8)
    np.random.seed(0)
    clip, target = mix(mixup, *pairs([0, 3]))
    # smoothing 0.1 of 4 classes: 0.925 for the class, 0.025 for the others
    one, other = 0.925, 0.025
    want = [lam * one + (1 - lam) * other, other, other, lam * other + (1 - lam) * one]
    assert target[0].tolist() == pytest.approx(want)
    assert target.sum(1).tolist() == pytest.approx([1, 1])
    assert clip[0].unique().tolist() == pytest.approx([lam * 1 + (1 - lam) * 2])


def test_cutmix_pastes_one_box_through_all_frames_and_weighs_by_its_area():
    mixup = build_mixup(0.0, 1.0, 0.0, 2, 2)
    for seed in range(5):
        np.random.seed(seed)
        clip, target = mix(mixup, *pairs([0, 1]))
        pasted = clip[0] == 2.0
        assert (pasted == pasted[0, 0]).all()
        share = pasted.float().mean().item()
        assert target[0].tolist() == pytest.approx([1 - share, share])


def test_mixup_needs_pairs():
    with pytest.raises(UsageError, match=r"data\.batch_size=3 must be even"):
        build_mixup(0.8, 1.0, 0.1, 4, 3)
    assert build_mixup(0.0, 0.0, 0.1, 4, 3) is None


def test_each_channel_is_mixed_with_the_same_channel_of_the_other_clip():
    np.random.seed(0)
    clip = torch.randn(2, 3, 2, 8, 8)
    before = clip.clone()
    mixed, target = mix(build_mixup(0.8, 0.0, 0.0, 2, 2), clip, torch.tensor([0, 1]))
    share = target[0, 0]
    torch.testing.assert_close(mixed, share * before + (1 - share) * before.flip(0))


def test_the_loss_smooths_labels_and_erases():
    seen = []

    class Logits(torch.nn.Module):
        def forward(self, clip):
            seen.append(clip)
            return torch.tensor([[3.0, 0, 0, 0]])

    step = ClassifierStep(Logits(), torch.float32)
    batch = {"label": torch.tensor([0]), "frames": torch.zeros(1, 4, 32, 32, 3, dtype=torch.uint8)}
    for erase in (0.0, 1.0):
        augment = AugmentConfig(mixup=0, cutmix=0, erase=erase, smoothing=0.1)
        value = step(Mixing.of(augment, 4, 1)(batch))[0].item()
        log_p = torch.tensor([3.0, 0, 0, 0]).log_softmax(0)
        assert value == pytest.approx(-(0.925 * log_p[0] + 0.025 * log_p[1:].sum()).item())
    assert seen[0].flatten(2).std(2).max() == 0 and seen[1].flatten(2).std(2).min() > 0


def test_the_step_of_fine_tuning_is_one_graph():
    torch.manual_seed(0)
    model = build_classifier("tiny", 4, frames=4, image_size=32, depth=2, drop_path=0.5)
    step = ClassifierStep(model, torch.bfloat16)
    batch = {"clip": torch.randn(2, 3, 4, 32, 32), "target": torch.full((2, 4), 0.25)}
    losses = []
    for run in (step, torch.compile(step, fullgraph=True, backend="eager")):
        torch.manual_seed(1)
        losses.append(run(batch)[0].item())
    assert losses[0] == losses[1]


RECIPE = ["out=o", "data.dataset=folder", "data.root=r", "model.size=tiny", "model.frames=4"]


def test_the_recipe_reaches_the_classifier_and_other_weights_leave_its_head(tmp_path):
    def built(*words):
        return build(load(FinetuneConfig, [*RECIPE, *words], "", ""), 4)[0]

    words = ["model.image_size=32", "model.depth=2", "model.drop_path=0.2", "model.fc_dropout=0.3"]
    model = built("init=none", *words)
    assert model.fc_dropout.p == 0.3 and model.encoder.blocks[1].drop_path1.drop_prob == 0.2
    torch.nn.init.constant_(model.head.weight, 5)
    learnt = {k: v for k, v in model.state_dict().items() if k != "encoder.pos_embed"}
    save_file(learnt, tmp_path / "w.safetensors")
    again = built(f"init={tmp_path / 'w.safetensors'}", *words)
    qkv = [one.encoder.blocks[1].attn.qkv.weight for one in (model, again)]
    assert torch.equal(*qkv) and again.head.weight.abs().max() < 1
