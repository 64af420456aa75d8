import numpy as np
import pytest
import torch

from mme_core.clips.contents import content_sizes
from mme_core.clips.settings import TargetSettings
from mme_core.spec import TargetSpec
from mme_core.targets import pack_valid
from mme_core.tokens import take_tokens
from train.objective.reconstruction import Objective
from train.scoring.pixels import ERRORS, end_point_errors

SPEC = TargetSpec(length=3)
K, L = 4, 3


def asked(displacement, mask, norm="none", valid=None, **settings):
    """Objective, batch and question of displacement [B, n, h, w, K, L, 2]; mask [B, n·h·w]."""
    b, n, h, w = displacement.shape[:4]
    settings = TargetSettings(norm=norm, **settings)
    valid = np.ones((b, n, h, w, K), bool) if valid is None else valid
    batch = {
        "frames": torch.zeros(b, 2 * n, 16 * h, 16 * w, 3, dtype=torch.uint8),
        "displacement": torch.as_tensor(displacement, dtype=torch.float32),
        "hog": torch.zeros(b, n, h, w, K, L, 9),
        "valid": torch.from_numpy(pack_valid(valid)),
        "flip": torch.zeros(b, dtype=torch.bool),
        "mask": torch.as_tensor(mask),
    }
    objective = Objective(
        spec=SPEC,
        settings=settings,
        weights={"position": 1.0},
        sizes=content_sizes(["position"], SPEC, settings),
        hidden=int(np.sum(mask[0])),
        mask_invalid=True,
        visible=0.0,
        grid=(n, h, w),
        shuffle=False,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return objective, batch, objective.ask(batch)


def errors(objective, batch, question, predicted):
    sums = end_point_errors(objective, batch, question, predicted)
    return dict(zip(ERRORS, (sums[:-1] / sums[-1]).tolist())), float(sums[-1])


def truth(objective, question):
    return take_tokens(question.targets["position"][0], question.hidden)


def test_guesses_are_worked_out_by_hand():
    """Three patches in a row: x moves 1, 5, 3 pixels a step; the middle one is hidden."""
    displacement = np.zeros((1, 1, 1, 3, K, L, 2))
    displacement[0, 0, 0, :, :, :, 0] = np.array([1, 5, 3])[:, None, None]
    parts = asked(displacement, [[False, True, False]])
    found, points = errors(*parts, truth(parts[0], parts[2]) + 1)
    assert points == K
    assert found["val_epe"] == pytest.approx(3 * np.sqrt(2))  # one pixel a step, in x and in y
    assert found["epe_zero"] == pytest.approx(15)
    assert found["epe_mean"] == found["epe_neighbours"] == pytest.approx(9)


def test_near_patches_count_more():
    displacement = np.zeros((1, 1, 1, 4, K, L, 2))
    displacement[0, 0, 0, :, :, :, 1] = np.array([9, 6, 0, 2])[:, None, None]
    parts = asked(displacement, [[False, False, True, False]])
    found, _ = errors(*parts, truth(parts[0], parts[2]))
    weights = np.array([2.0**-4, 1, 1])
    assert found["epe_neighbours"] == pytest.approx(3 * weights @ [9, 6, 2] / weights.sum())
    assert found["epe_mean"] == pytest.approx(17)
    assert found["val_epe"] == 0


def test_weights_of_far_patches_add_up_to_one():
    displacement = np.zeros((1, 1, 1, 60, K, L, 2))
    displacement[..., 0] = 1
    mask = np.arange(60)[None] > 0
    found, _ = errors(*(parts := asked(displacement, mask)), truth(parts[0], parts[2]))
    assert found["epe_neighbours"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("norm", ["patch", "length"])
def test_moments_come_from_visible_patches_alone(norm):
    """Equal patches: the right normalised prediction gives the right pixels; others do not."""
    one = np.random.default_rng(0).normal(1, 2, (K, L, 2))
    displacement = np.broadcast_to(one, (2, 2, 2, 2, K, L, 2)).copy()
    mask = np.array([[True, False, True, False] * 2] * 2)
    objective, batch, question = asked(displacement, mask, norm)
    right = truth(objective, question)
    assert errors(objective, batch, question, right)[0]["val_epe"] < 1e-4
    assert errors(objective, batch, question, right * 2)[0]["val_epe"] > 1
    # What is hidden is not looked at: only the error changes when it moves by another pixel.
    batch["displacement"][:, :, :, 0] += 1
    moved = errors(objective, batch, question, right)[0]
    assert moved["val_epe"] == pytest.approx(L * np.sqrt(2), rel=1e-4)


def test_invalid_trajectories_count_on_neither_side():
    displacement = np.zeros((1, 1, 1, 3, K, L, 2))
    displacement[0, 0, 0, :, :, :, 0] = np.array([1, 1, 100])[:, None, None]
    displacement[0, 0, 0, 1, 0] = 1000
    valid = np.ones((1, 1, 1, 3, K), bool)
    valid[0, 0, 0, 1, 0] = valid[0, 0, 0, 2, 3] = False
    parts = asked(displacement, [[False, True, False]], valid=valid)
    found, points = errors(*parts, torch.zeros(1, 1, K * L * 2))
    assert points == K - 1
    assert found["epe_neighbours"] == found["epe_mean"] == pytest.approx(0)
    assert found["val_epe"] == found["epe_zero"] == pytest.approx(3)


def test_merged_points_have_one_error_a_patch():
    displacement = np.ones((1, 1, 2, 2, K, L, 2))
    parts = asked(displacement, [[True, False, False, True]], merge="mean")
    found, points = errors(*parts, truth(parts[0], parts[2]))
    assert points == 2 and found["val_epe"] == 0 and found["epe_zero"] == pytest.approx(3 * 2**0.5)
