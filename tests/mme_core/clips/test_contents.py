from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mme_core import cells, targets
from mme_core.canvas import grid_points
from mme_core.clips.appearance import luma, shuffle_frames
from mme_core.clips.contents import (
    CONTENTS,
    GROUPS,
    build_targets,
    content_sizes,
    content_weights,
)
from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import stored_to_raw
from mme_core.errors import UsageError
from mme_core.extract.hog import HogField
from mme_core.spec import TargetSpec
from mme_core.store.window import CodedWindow

SPEC = TargetSpec(camera="homography", cells=("hog", "hof", "mbh"))
B, n, h, w, K, L = 2, 3, 4, 4, 4, 6


def a_batch(seed=0, flip=(False, True)):
    """Two clips as the loader delivers them, and their raw arrays before quantisation."""
    rng = np.random.default_rng(seed)
    displacement = rng.normal(0, 3, (B, n, h, w, K, L, 2)).astype(np.float32)
    hog = rng.gamma(1, 1, (B, n, h, w, K, L, 9)).astype(np.float32)
    valid = rng.random((B, n, h, w, K)) > 0.3
    position, shape, moments = targets.encode(displacement, hog, SPEC)
    arrays = {
        "frames": rng.integers(0, 256, (B, 2 * n, 16 * h, 16 * w, 3), dtype=np.uint8),
        "position": position,
        "shape": shape,
        "moments": moments,
        "valid": targets.pack_valid(valid),
        "flip": np.array(flip),
        **cells.encode_all(
            {
                name: rng.gamma(1, 1, (B, n, h, w, K, L, cells.bins(name, SPEC))).astype("f4")
                for name in SPEC.cells
            }
        ),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, (hog, valid)


def decoded(batch):
    arrays = {name: value.numpy() for name, value in batch.items()}
    displacement = targets.decode_displacement(arrays["position"], arrays["moments"], SPEC)
    return displacement, targets.decode_hog(arrays["shape"], arrays["moments"], SPEC)


def test_raw_values_are_the_stores_and_flipped_where_the_clip_is():
    batch, (_, valid) = a_batch()
    displacement, hog = decoded(batch)
    raw = stored_to_raw(batch, SPEC)
    np.testing.assert_array_equal(raw.displacement[0], displacement[0])
    np.testing.assert_array_equal(raw.hog[0], hog[0])
    np.testing.assert_array_equal(raw.valid[0], valid[0])
    points, columns = [1, 0, 3, 2], slice(None, None, -1)
    mirrored = displacement[1][:, :, columns][..., points, :, :] * np.float32([-1, 1])
    np.testing.assert_array_equal(raw.displacement[1], mirrored)
    np.testing.assert_array_equal(raw.hog[1], hog[1][:, :, columns][..., points, :, ::-1])
    np.testing.assert_array_equal(raw.valid[1], valid[1][:, :, columns][..., points])


def test_raw_values_are_the_windows():
    """Crops and flips of stored arrays on the device are those of `Window`, exactly."""
    batch, _ = a_batch(flip=(False, True))
    raw = stored_to_raw(batch, SPEC)
    for clip, mirror in enumerate((False, True)):
        arrays = {name: batch[name][clip].numpy() for name in ("position", "shape", "moments")}
        coded = CodedWindow(
            **arrays,
            valid=batch["valid"][clip].numpy(),
            pts=np.zeros((n, 2), np.int64),
            frames=(),
            homography=None,
            video="a.mp4",
            start=0,
            spec=SPEC,
        )
        window = coded.decode().flip() if mirror else coded.decode()
        for name in ("displacement", "hog", "valid"):
            np.testing.assert_array_equal(getattr(raw, name)[clip], getattr(window, name))
        settings = TargetSettings()
        built = build_targets(batch, SPEC, settings, ["position", "shape"])
        for name in ("position", "shape"):
            expected = getattr(window, name).reshape(n * h * w, -1)
            np.testing.assert_allclose(built[name][0][clip], expected, atol=2e-5)


def test_flip_moves_the_tracks_as_a_mirror_does():
    """Points of the flipped clip are the mirror images of the points of the clip."""
    batch, _ = a_batch(flip=(True, True))
    displacement, _ = decoded(batch)
    grid = grid_points(h, w, SPEC)
    end = grid + displacement.sum(-2)
    flipped_end = grid + stored_to_raw(batch, SPEC).displacement.numpy().sum(-2)
    mirrored = end * [-1, 1] + [16 * w - 1, 0]
    for points in (end, flipped_end, mirrored):
        assert points.shape == (B, n, h, w, K, 2)
    order = np.lexsort(mirrored.reshape(B * n, -1, 2).transpose(2, 0, 1))
    other = np.lexsort(flipped_end.reshape(B * n, -1, 2).transpose(2, 0, 1))
    np.testing.assert_allclose(
        np.take_along_axis(mirrored.reshape(B * n, -1, 2), order[..., None], 1),
        np.take_along_axis(flipped_end.reshape(B * n, -1, 2), other[..., None], 1),
        atol=1e-4,
    )


def test_zoomed_batches_come_as_raw_values():
    batch, _ = a_batch()
    displacement, hog = decoded(batch)
    zoomed = {name: batch[name] for name in ("frames", "valid", "flip")}
    zoomed |= {"displacement": torch.from_numpy(displacement), "hog": torch.from_numpy(hog)}
    for one, other in zip(stored_to_raw(zoomed, SPEC), stored_to_raw(batch, SPEC)):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


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


def test_a_group_of_equal_numbers_is_exactly_zero():
    values = torch.full((3, 4, 6, 2), 5.1)
    assert targets.normalise(values, (-3, -2, -1)).abs().max() == 0


def camera_batch(flip):
    """A clip whose every point moves with the camera, by homographies that zoom and shear."""
    batch, (hog, _) = a_batch()
    origin = np.array([[32.0, 16.0], [0.0, 48.0]], np.float32)  # a crop of a larger canvas
    rng = np.random.default_rng(3)
    homography = np.eye(3) + rng.normal(0, 1, (B, n, L, 3, 3)) * [
        [0.01, 0.01, 2],
        [0.01, 0.01, 2],
        [1e-5, 1e-5, 0],
    ]
    points = np.empty((B, n, h, w, K, L + 1, 2))
    points[..., 0, :] = grid_points(h, w, SPEC) + origin[:, None, None, None, None]
    for step in range(L):
        ones = np.ones((B, n, h, w, K, 1))
        p = np.concatenate([points[..., step, :], ones], -1)
        q = np.einsum("bnij,bnhwkj->bnhwki", homography[:, :, step], p)
        points[..., step + 1, :] = q[..., :2] / q[..., 2:]
    displacement = np.diff(points, axis=-2).astype(np.float32)
    own = np.zeros_like(displacement)
    own[:, 0, 1, 2, 3, -1] = [1.5, -0.5]  # one point also moves by itself, in the last step
    return {
        "frames": batch["frames"],
        "valid": batch["valid"],
        "flip": torch.tensor(flip),
        "displacement": torch.from_numpy(displacement + own),
        "hog": torch.from_numpy(hog),
        "homography": torch.from_numpy(homography.astype(np.float32)),
        "origin": torch.from_numpy(origin),
    }


def test_camera_residual_leaves_what_moves_by_itself():
    residual = stored_to_raw(camera_batch((False, True)), SPEC, camera=True).displacement
    expected = torch.zeros(B, n, h, w, K, L, 2)
    expected[0, 0, 1, 2, 3, -1] = torch.tensor([1.5, -0.5])
    expected[1, 0, 1, w - 1 - 2, 2, -1] = torch.tensor([-1.5, -0.5])  # flipped
    torch.testing.assert_close(residual, expected, atol=2e-3, rtol=0)
    total = stored_to_raw(camera_batch((False, True)), SPEC).displacement
    assert total.abs().mean() > 1


def test_first_steps_of_a_store():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    settings = TargetSettings(norm="none", length=4)
    built = build_targets(batch, SPEC, settings, ["position", "shape"])
    expected = raw.displacement[..., :4, :].flatten(4).flatten(1, 3)
    torch.testing.assert_close(built["position"][0], expected)
    assert built["shape"][0].shape[-1] == K * 4 * 9
    assert built["shape"][1].shape[-1] == K * 4 * 9


def test_merged_points():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    mean = build_targets(batch, SPEC, TargetSettings(norm="none", merge="mean"), ["position"])
    expected = raw.displacement.mean(-3).flatten(4).flatten(1, 3)
    torch.testing.assert_close(mean["position"][0], expected)
    assert torch.equal(mean["position"][1][..., 0], raw.valid.all(-1).flatten(1))

    built = build_targets(batch, SPEC, TargetSettings(norm="none", merge="max"), list(CONTENTS)[:2])
    travelled = raw.displacement.norm(dim=-1).sum(-1)
    where = (1, 2, 0, 3, 1)
    for b, t, i, j in [where[:4], (0, 1, 3, 2)]:
        k, token = int(travelled[b, t, i, j].argmax()), (t * h + i) * w + j
        position, valid = built["position"]
        torch.testing.assert_close(position[b, token], raw.displacement[b, t, i, j, k].flatten())
        torch.testing.assert_close(built["shape"][0][b, token], raw.hog[b, t, i, j, k].flatten())
        assert (valid[b, token] == raw.valid[b, t, i, j, k]).all()


def test_validity_follows_points():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    built = build_targets(batch, SPEC, TargetSettings(), list(CONTENTS))
    for name, last in (("position", 2), ("shape", 9)):
        valid = built[name][1].reshape(B, n, h, w, K, L, last)
        assert torch.equal(valid, raw.valid[..., None, None].expand_as(valid))
    for name in ("pixel", "hog", "hog_sampled"):
        assert built[name][1].shape == (B, n * h * w, 1) and built[name][1].all()
    for name in ("hof", "mbh", "mbh_every", "hog_every"):
        assert torch.equal(built[name][1][..., 0], raw.valid.any(-1).flatten(1))


def test_pixels_are_normalised_per_channel():
    batch, _ = a_batch()
    target = build_targets(batch, SPEC, TargetSettings(), ["pixel"])["pixel"][0]
    patch = batch["frames"][1, 2:4, 16:32, 32:48].double()  # tubelet 1, row 1, column 2
    mean, deviation = patch.mean((0, 1, 2)), patch.std((0, 1, 2), correction=0)
    expected = ((patch - mean) / deviation).flatten()
    torch.testing.assert_close(target[1, (h + 1) * w + 2].double(), expected, atol=1e-4, rtol=0)
    assert target.shape == (B, n * h * w, 2 * 16 * 16 * 3)


def test_hog_is_the_stores_at_the_cells_of_the_second_frame():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (1, 2, 12, 12, 3), dtype=np.uint8)
    frames = np.stack([cv2.resize(f, (64, 48), interpolation=cv2.INTER_CUBIC) for f in small[0]])
    grey = cv2.cvtColor(frames[1], cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(luma(torch.from_numpy(frames[1])), grey, atol=1)
    batch = {
        "frames": torch.from_numpy(frames)[None],
        "flip": torch.tensor([False]),
        "position": torch.zeros(1, 1, 3, 4, K, L, 2, dtype=torch.int8),
        "shape": torch.zeros(1, 1, 3, 4, K, L, 9, dtype=torch.int8),
        "moments": torch.zeros(1, 1, 3, 4, 6),
        "valid": torch.zeros(1, 1, 3, 4, dtype=torch.uint8),
    }
    target = build_targets(batch, SPEC, TargetSettings(norm="none"), ["hog"])["hog"][0]
    exact = luma(torch.from_numpy(frames[1])).numpy().astype(np.uint8)
    points = grid_points(3, 4, SPEC).reshape(-1, 2)
    field = HogField(exact.shape, SPEC)
    field.load(exact)
    expected = field.at(points).reshape(1, 12, 36)
    np.testing.assert_allclose(target, expected, atol=2e-3)
    assert expected.max() > 1


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


def test_sampled_hog_ends_with_the_second_frames():
    batch, _ = a_batch()
    built = build_targets(batch, SPEC, TargetSettings(norm="none"), ["hog", "hog_sampled"])
    assert torch.equal(built["hog_sampled"][0][..., 36:], built["hog"][0])
    swapped = dict(batch, frames=batch["frames"].unflatten(1, (n, 2)).flip(2).flatten(1, 2))
    other = build_targets(swapped, SPEC, TargetSettings(norm="none"), ["hog"])["hog"][0]
    assert torch.equal(built["hog_sampled"][0][..., :36], other)


@pytest.mark.parametrize(
    ("content", "name", "steps"),
    [
        ("hof", "hof", [0]),
        ("mbh", "mbh", [0]),
        ("mbh_sampled", "mbh", [0, 4]),
        ("mbh_every", "mbh", range(6)),
        ("hog_every", "hog", range(6)),
    ],
)
def test_contents_of_cells_are_the_stored_ones_mirrored_with_the_clip(content, name, steps):
    batch, _ = a_batch()
    codes, moments = (batch[array] for array in cells.array_names((name,)))
    stored = cells.decode(codes, moments)[..., list(steps), :]
    mirrored = stored[1].flip(2)[..., [1, 0, 3, 2], :, :][..., cells.mirrored(name, SPEC)]
    expected = torch.stack([stored[0], mirrored]).flatten(4).flatten(1, 3)
    target = build_targets(batch, SPEC, TargetSettings(norm="none"), [content])[content][0]
    torch.testing.assert_close(target, expected)
    target = build_targets(batch, SPEC, TargetSettings(), [content])[content][0]
    assert abs(target.mean(-1)).max() < 1e-5 and abs(target.std(-1, correction=0) - 1).max() < 1e-3


def test_shuffled_frames_are_permutations_of_their_own():
    frames = torch.arange(3 * 8).reshape(3, 8, 1, 1, 1).expand(3, 8, 2, 2, 3)
    shuffled = shuffle_frames(frames, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.sort(1).values, frames)
    orders = (shuffled - frames[:, :1])[..., 0, 0, 0]
    assert not torch.equal(orders[0], orders[1])


def test_sizes_are_what_the_heads_predict():
    sizes = content_sizes(list(CONTENTS), SPEC, TargetSettings())
    assert sizes == {
        "position": 48,
        "shape": 216,
        "pixel": 1536,
        "hog": 36,
        "flow": 8,
        "hof": 36,
        "mbh": 72,
        "position_sampled": 8,
        "shape_sampled": 72,
        "hog_sampled": 72,
        "hog_every": 216,
        "mbh_sampled": 144,
        "mbh_every": 432,
    }
    some = ["position", "shape", "pixel", "hog", "flow"]
    merged = content_sizes(some, SPEC, TargetSettings(merge="max", length=3, camera=True))
    assert merged == {"position": 6, "shape": 27, "pixel": 1536, "hog": 36, "flow": 2}


def test_contents_and_weights_of_a_recipe():
    assert content_weights(["trajectory"], {}) == {"position": 1, "shape": 1}
    weights = content_weights(["trajectory", "pixel"], {"trajectory": 2, "shape": 0.5, "pixel": 3})
    assert weights == {"position": 2, "shape": 0.5, "pixel": 3}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: content_weights(["speed"], {}), "'speed' is not a content"),
        (lambda: content_weights(["position", "trajectory"], {}), "position twice"),
        (lambda: content_weights(["position"], {"hog": 1}), "weights=.* names hog"),
        (lambda: content_weights([], {}), "must name at least one"),
        (lambda: TargetSettings(norm="unit"), "norm=unit"),
        (lambda: TargetSettings(merge="sum"), "merge=sum"),
        (lambda: TargetSettings(floor=-1), "floor="),
        (lambda: TargetSettings(norm="step", merge="mean"), "norm=step"),
        (lambda: content_sizes([], SPEC, TargetSettings(length=7)), "length=7"),
        (lambda: content_sizes([], TargetSpec(), TargetSettings(camera=True)), "camera="),
        (lambda: content_sizes(["hof"], TargetSpec(), TargetSettings()), r"spec\.cells=hof"),
        (
            lambda: content_sizes(["position_sampled"], SPEC, TargetSettings(length=3)),
            "length=4, and these have 3",
        ),
        (
            lambda: content_sizes(
                ["mbh_sampled"], replace(SPEC, stride=6, hop=12), TargetSettings()
            ),
            r"spec\.length=6 must be above",
        ),
    ],
)
def test_bad_settings_name_the_field(call, word):
    with pytest.raises(UsageError, match=word):
        call()


def test_targets_compile_to_one_graph():
    batch, _ = a_batch()
    batch |= {name: camera_batch((False, True))[name] for name in ("homography", "origin")}
    settings = TargetSettings(camera=True, floor=0.1)

    def build(batch):
        return build_targets(batch, SPEC, settings, tuple(CONTENTS))

    compiled = torch.compile(build, fullgraph=True, backend="eager")(batch)
    for name, (target, valid) in build(batch).items():
        torch.testing.assert_close(compiled[name][0], target)
        assert torch.equal(compiled[name][1], valid)


def test_the_floor_holds_for_a_length_and_not_for_hog():
    batch, _ = a_batch()
    both = ["position", "shape"]
    free = build_targets(batch, SPEC, TargetSettings(norm="none"), both)
    floored = build_targets(batch, SPEC, TargetSettings(norm="length", floor=1e4), both)
    torch.testing.assert_close(floored["position"][0], free["position"][0] / 1e4)
    plain = build_targets(batch, SPEC, TargetSettings(), both)
    assert torch.equal(floored["shape"][0], plain["shape"][0])
