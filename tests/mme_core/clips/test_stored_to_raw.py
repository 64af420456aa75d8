import numpy as np
import torch
from content_batches import SPEC, B, K, L, a_batch, camera_batch, decoded, h, n, w

from mme_core.canvas import grid_points
from mme_core.clips.contents import CONTENTS, build_targets
from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import stored_to_raw
from mme_core.store.window import CodedWindow


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


def test_a_batch_without_flips_keeps_its_values():
    batch, (_, valid) = a_batch(flip=(False, False))
    for value, stored in zip(stored_to_raw(batch, SPEC), (*decoded(batch), valid)):
        np.testing.assert_array_equal(value, stored)


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


def test_camera_residual_leaves_what_moves_by_itself():
    residual = stored_to_raw(camera_batch((False, True)), SPEC, camera=True).displacement
    expected = torch.zeros(B, n, h, w, K, L, 2)
    expected[0, 0, 1, 2, 3, -1] = torch.tensor([1.5, -0.5])
    expected[1, 0, 1, w - 1 - 2, 2, -1] = torch.tensor([-1.5, -0.5])  # flipped
    torch.testing.assert_close(residual, expected, atol=2e-3, rtol=0)
    total = stored_to_raw(camera_batch((False, True)), SPEC).displacement
    assert total.abs().mean() > 1


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


def test_first_steps_of_a_store():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    settings = TargetSettings(norm="none", length=4)
    built = build_targets(batch, SPEC, settings, ["position", "shape"])
    expected = raw.displacement[..., :4, :].flatten(4).flatten(1, 3)
    torch.testing.assert_close(built["position"][0], expected)
    assert built["shape"][0].shape[-1] == K * 4 * 9
    assert built["shape"][1].shape[-1] == K * 4 * 9
