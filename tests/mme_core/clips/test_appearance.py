import cv2
import numpy as np
import torch
from content_batches import SPEC, B, K, L, a_batch, h, n, w

from mme_core.canvas import grid_points
from mme_core.clips.appearance import luma, shuffle_frames
from mme_core.clips.contents import build_targets
from mme_core.clips.settings import TargetSettings
from mme_core.extract.hog import HogField


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


def test_sampled_hog_ends_with_the_second_frames():
    batch, _ = a_batch()
    built = build_targets(batch, SPEC, TargetSettings(norm="none"), ["hog", "hog_sampled"])
    assert torch.equal(built["hog_sampled"][0][..., 36:], built["hog"][0])
    swapped = dict(batch, frames=batch["frames"].unflatten(1, (n, 2)).flip(2).flatten(1, 2))
    other = build_targets(swapped, SPEC, TargetSettings(norm="none"), ["hog"])["hog"][0]
    assert torch.equal(built["hog_sampled"][0][..., :36], other)


def test_shuffled_frames_are_permutations_of_their_own():
    frames = torch.arange(3 * 8).reshape(3, 8, 1, 1, 1).expand(3, 8, 2, 2, 3)
    shuffled = shuffle_frames(frames, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.sort(1).values, frames)
    orders = (shuffled - frames[:, :1])[..., 0, 0, 0]
    assert not torch.equal(orders[0], orders[1])
