"""Batches of noise in the form that the loader delivers, for the tests of contents."""

import numpy as np
import torch

from mme_core import cells, targets
from mme_core.canvas import grid_points
from mme_core.spec import TargetSpec

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
