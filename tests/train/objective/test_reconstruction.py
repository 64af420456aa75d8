"""The step of pre-training: one graph from the raw batch to the loss."""

import dataclasses

import numpy as np
import pytest
import torch

from mme_core import cells
from mme_core.clips.contents import CONTENTS
from mme_core.clips.settings import MERGES, NORMS
from mme_core.clips.views import to_model_input
from mme_core.errors import UsageError
from mme_core.losses import reconstruction_loss
from mme_core.masking import MASKS, make_mask
from mme_core.model import DECODERS
from mme_core.spec import TargetSpec
from mme_core.tokens import split_tokens
from train.engine.distributed import check_residual
from train.objective.reconstruction import Objective, PretrainStep, build_model
from train.recipes.loading import load
from train.recipes.pretraining import PretrainConfig

SPEC = TargetSpec(camera="homography", cells=("hog", "hof", "mbh"))
GRID = (2, 3, 3)  # tubelets, rows and columns of a clip's tokens
RECIPE = ["--config", "tiny.yaml", "store=s", "out=o", "model.frames=4", "model.depth=1"]


def a_step(*words, dtype=torch.float32):
    config = load(PretrainConfig, [*RECIPE, *words], "", "")
    objective = Objective.of(config, SPEC, torch.device("cpu"), dtype)
    torch.manual_seed(0)
    return PretrainStep(build_model(config, objective.sizes), objective)


def a_batch(mask="tube", zoomed=False):
    """Two clips of noise as the loader delivers them; after a zoom, of crops of 4 and 2 patches."""
    rng, torch_rng = np.random.default_rng(0), torch.Generator().manual_seed(0)
    tokens = (2, *GRID)
    side, grid = (4, (2, 2, 6, 6)) if zoomed else (3, tokens)
    track = (*grid, SPEC.points, SPEC.length)

    def bytes_of(shape, low, high, dtype):
        return torch.randint(low, high, shape, dtype=dtype, generator=torch_rng)

    masks = [make_mask(mask, GRID, 0.7, rng, rng.random(GRID[1:])).ravel() for _ in range(2)]
    batch = {
        "frames": bytes_of((2, 4, 16 * side, 16 * side, 3), 0, 256, torch.uint8),
        "valid": bytes_of(grid, 0, 16, torch.uint8),
        "flip": torch.tensor([True, False]),
        "mask": torch.from_numpy(np.stack(masks)),
        "homography": torch.eye(3).expand(2, 2, SPEC.length, 3, 3),
        "position": bytes_of((*track, 2), -127, 128, torch.int8),
        "shape": bytes_of((*track, SPEC.hog_bins), -127, 128, torch.int8),
        "moments": torch.rand(*grid, 6, generator=torch_rng),
    }
    if zoomed:
        return batch | {"view": torch.tensor([[0, 1, 4, 5, 6], [2, 0, 2, 5, 6]])}
    for name in SPEC.cells:
        bins = cells.bins(name, SPEC)
        batch[cells.codes_name(name)] = bytes_of((*track, bins), -127, 128, torch.int8)
        batch[cells.moments_name(name)] = torch.rand(*tokens, 2, generator=torch_rng)
    return batch | {"origin": torch.zeros(2, 2)}


# Together these name every content, normalisation, merge, mask and decoder.
CASES = [
    ({}, ["norm.kind=patch"]),
    ({"mask": "cube"}, ["norm.kind=step", "decoder.kind=separate", "loss.mask_invalid=false"]),
    (
        {"mask": "random"},
        [
            "norm.kind=length",
            "target.merge=max",
            "decoder.depth=2",
            "model.depth=3",
            "loss.depths=[1,2]",
        ],
    ),
    ({"mask": "motion"}, ["norm.kind=none", "target.merge=mean", "norm.camera=true"]),
    ({}, ["loss.contents=[flow,hof,mbh,position_sampled,shape_sampled,hog_sampled]"]),
    ({}, ["loss.contents=[hog_every,mbh_sampled,mbh_every]"]),
    ({"zoomed": True}, ["loss.contents=[position,pixel,hog]", "norm.kind=scale"]),
    (
        {"mask": "future"},
        [
            "loss.visible=0.5",
            "data.shuffle_frames=true",
            "target.length=3",
            "norm.floor=0.1",
            "target.merge=none",
        ],
    ),
]


@pytest.mark.parametrize(("batch", "words"), CASES)
def test_the_whole_step_is_one_graph(batch, words):
    step, batch = a_step(*words), a_batch(**batch)
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    # Not compiled, a CPU zooms frames by OpenCV, which differs by a grey level.
    exact = 1e-2 if "view" in batch else 1e-5
    losses, gradients = [], []
    for run in (step, compiled):
        torch.manual_seed(1)
        loss, terms = run(batch)
        loss.backward()
        losses.append([loss.item(), *(term.item() for term in terms.values())])
        gradients.append({n: p.grad.clone() for n, p in step.named_parameters()})
        step.zero_grad()
    assert losses[1] == pytest.approx(losses[0], rel=exact)
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=10 * exact, atol=exact / 10)


def test_every_choice_of_a_recipe_has_such_a_case():
    text = str(CASES)
    chosen = [*NORMS, *MERGES, *DECODERS, *MASKS, *CONTENTS]
    defaults = ["tube", "joint", "shape"]
    assert [name for name in chosen if name not in text and name not in defaults] == []


def test_the_step_is_the_public_model_with_its_loss():
    step, batch = a_step(), a_batch()
    loss, _ = step(batch)
    clip, hidden = to_model_input(batch["frames"]), step.objective.hidden
    question = step.objective.ask(batch)
    expected, _ = reconstruction_loss(
        step.model(clip, batch["mask"]),
        question.targets,
        split_tokens(batch["mask"], hidden)[1],
        step.objective.weights,
    )
    assert torch.equal(loss, expected)


def test_a_step_with_bf16_tokens_loses_about_the_same():
    batch, losses = a_batch(), []
    for residual in ("fp32", "bf16"):
        step = a_step(f"model.residual={residual}", dtype=torch.bfloat16)
        losses.append(step(batch)[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and losses[1] != losses[0]
    with pytest.raises(UsageError, match=r"model\.residual=bf16 needs precision=bf16"):
        check_residual("bf16", torch.float32)


def test_losses_of_several_depths_are_averaged():
    step, batch = a_step("model.depth=3", "loss.depths=[1,2]"), a_batch()
    loss, terms = step(batch)
    question = step.objective.ask(batch)
    answers = step.model.predict_depths(question.patches, question.visible, question.hidden)
    first, second, end = (step.objective.loss(answer, question) for answer in answers)
    torch.testing.assert_close(loss, (first[0] + second[0] + end[0]) / 3)
    torch.testing.assert_close(terms.pop("early"), (first[0] + second[0]) / 2)
    assert terms == end[1]


def test_an_early_loss_trains_the_blocks_up_to_its_depth():
    step = a_step("model.depth=3", "loss.depths=[2]")
    step(a_batch())[1]["early"].backward()
    reached = [bool(block.mlp.fc2.weight.grad.any()) for block in step.model.encoder.blocks]
    assert reached == [True, True, False]


def test_a_depth_that_the_encoder_lacks_is_refused():
    with pytest.raises(UsageError, match=r"loss\.depths=\[1\] must be .* which is block 1"):
        a_step("loss.depths=[1]")


def test_hidden_pixels_are_not_read():
    step, batch = a_step(), a_batch()
    patches = step.objective.ask(batch).patches
    assert patches.shape == (2, 2 * 3, 3 * 2 * 16 * 16)
    frames = batch["frames"].clone()
    hidden = batch["mask"].reshape(2, *GRID)
    hidden = hidden.repeat_interleave(2, 1).repeat_interleave(16, 2).repeat_interleave(16, 3)
    frames[hidden] = 0
    other = dataclasses.replace(step.objective).ask({**batch, "frames": frames})
    assert torch.equal(other.patches, patches)


def test_loss_on_visible_tokens_is_added_and_reported():
    step, plain, batch = a_step("loss.visible=0.5"), a_step(), a_batch()
    loss, terms = step(batch)
    hidden, _ = plain(batch)
    torch.testing.assert_close(loss, hidden + 0.5 * terms["visible"])
    assert terms["visible"] > 0
