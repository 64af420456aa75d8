import numpy as np
import pytest
import torch
from content_batches import SPEC, B, K, L, a_batch, decoded, h, n, w

from mme_core import targets
from mme_core.clips.contents import GROUPS, build_targets
from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import stored_to_raw


def test_patch_normalisation_is_the_stores_definition():
    batch, _ = a_batch(flip=(False, False))
    displacement, hog = decoded(batch)
    built = build_targets(batch, SPEC, TargetSettings(), ["position", "shape"])
    for name, raw in (("position", displacement), ("shape", hog)):
        expected = targets.normalise(raw).reshape(B, n * h * w, -1)
        np.testing.assert_allclose(built[name][0], expected, atol=2e-5)
    assert built["position"][0].shape == (B, n * h * w, 48)
    assert built["shape"][0].shape == (B, n * h * w, 216)


def test_step_normalisation_deletes_common_translation():
    batch, _ = a_batch()
    settings = TargetSettings(norm="step")
    target = build_targets(batch, SPEC, settings, ["position"])["position"][0]
    values = target.reshape(B, n, h, w, K, L, 2)
    torch.testing.assert_close(values.mean(-3), torch.zeros(B, n, h, w, L, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        values.std(-3, correction=0), torch.ones(B, n, h, w, L, 2), atol=1e-4, rtol=0
    )
    moved = dict(batch, moments=batch["moments"] + torch.tensor([5.0, -7, 0, 0, 0, 0]))
    again = build_targets(moved, SPEC, settings, ["position"])["position"][0]
    torch.testing.assert_close(again, target, atol=1e-3, rtol=0)


def test_length_normalisation_and_none():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    none = build_targets(batch, SPEC, TargetSettings(norm="none"), ["position", "shape"])
    torch.testing.assert_close(none["position"][0], raw.displacement.flatten(4).flatten(1, 3))
    torch.testing.assert_close(none["shape"][0], raw.hog.flatten(4).flatten(1, 3))
    length = build_targets(batch, SPEC, TargetSettings(norm="length"), ["position"])
    travelled = length["position"][0].reshape(B, -1, K, L, 2).norm(dim=-1).sum(-1)
    torch.testing.assert_close(travelled, torch.ones_like(travelled))


def test_scale_keeps_the_direction_that_patch_normalisation_loses():
    batch, _ = a_batch(flip=(False, False))
    moments = batch["moments"]

    def position(norm, x, y):
        moments[..., :4] = torch.tensor([x, y, 0.0, 0.0])
        built = build_targets(batch, SPEC, TargetSettings(norm=norm), ["position"])
        return built["position"][0][0, 0].reshape(K, L, 2)

    left, down = (-2.0, 0.0), (0.0, 3.0)
    torch.testing.assert_close(position("patch", *left), position("patch", *down))
    for x, y in (left, down):
        expected = torch.tensor([x, y]).sign() * 2**0.5  # a root mean square of 1
        torch.testing.assert_close(position("scale", x, y), expected.expand(K, L, 2))


def test_floor_keeps_static_patches_small_and_leaves_moving_ones():
    batch, _ = a_batch(flip=(False, False))
    batch["moments"][:, 0, 0, 0, 0:4] = torch.tensor([0.0, 0.0, 0.01, 0.01])
    for norm in ("patch", "step"):
        plain = build_targets(batch, SPEC, TargetSettings(norm=norm), ["position"])["position"][0]
        settings = TargetSettings(norm=norm, floor=0.25)
        floored = build_targets(batch, SPEC, settings, ["position"])["position"][0]
        assert plain[:, 0].std() > 0.5 and floored[:, 0].std() < 0.1
        if norm == "patch":
            torch.testing.assert_close(floored[:, 1:], plain[:, 1:])


@pytest.mark.parametrize("norm", ["length", "scale"])
def test_the_floor_holds_for_sizes_and_not_for_hog(norm):
    batch, _ = a_batch()
    both = ["position", "shape"]
    free = build_targets(batch, SPEC, TargetSettings(norm="none"), both)
    floored = build_targets(batch, SPEC, TargetSettings(norm=norm, floor=1e4), both)
    torch.testing.assert_close(floored["position"][0], free["position"][0] / 1e4)
    plain = build_targets(batch, SPEC, TargetSettings(), both)
    assert torch.equal(floored["shape"][0], plain["shape"][0])


def test_flow_is_the_first_step_at_the_points():
    batch, _ = a_batch()
    target, valid = build_targets(batch, SPEC, TargetSettings(norm="none"), ["flow"])["flow"]
    raw = stored_to_raw(batch, SPEC)
    torch.testing.assert_close(target, raw.displacement[..., 0, :].flatten(4).flatten(1, 3))
    assert torch.equal(valid[..., ::2], raw.valid.flatten(1, 3))
    target = build_targets(batch, SPEC, TargetSettings(), ["flow"])["flow"][0]
    torch.testing.assert_close(target.mean(-1), torch.zeros(B, n * h * w), atol=1e-5, rtol=0)


def test_sampled_trajectories_join_the_two_frames_of_a_tubelet():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    built = build_targets(batch, SPEC, TargetSettings(norm="none"), GROUPS["trajectory_sampled"])
    moved = raw.displacement[..., : SPEC.stride, :].sum(-2)
    torch.testing.assert_close(built["position_sampled"][0], moved.flatten(4).flatten(1, 3))
    hog = raw.hog[..., [0, SPEC.stride], :]
    torch.testing.assert_close(built["shape_sampled"][0], hog.flatten(4).flatten(1, 3))
