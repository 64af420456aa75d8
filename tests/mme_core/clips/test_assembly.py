import cv2
import numpy as np
import pytest
import torch

from mme_core.canvas import grid_points
from mme_core.clips.assembly import (
    _filter,
    assemble,
    zoom_field,
    zoom_frames,
    zoom_homography,
    zoom_taps,
)
from mme_core.clips.dataset import ClipDataset
from mme_core.spec import TargetSpec

SPEC = TargetSpec()


def bordered(values_hwKD, top, left, size, largest):
    """A coded batch's layout [1, 1, C + 2, C + 2, K, D] of a canvas' numbers, and its view."""
    height, width, *rest = values_hwKD.shape
    field = np.zeros((largest + 2, largest + 2, *rest), np.float32)
    rows = slice(max(top - 1, 0), min(top + size + 1, height))
    columns = slice(max(left - 1, 0), min(left + size + 1, width))
    place = tuple(
        slice(part.start - start + 1, part.stop - start + 1)
        for part, start in ((rows, top), (columns, left))
    )
    field[place] = values_hwKD[rows, columns]
    view = torch.tensor([[top, left, size, height, width]])
    return torch.from_numpy(field)[None, None], view


def read(values_hwKD, top, left, size, out, grid, largest=16):
    field, view = bordered(values_hwKD, top, left, size, largest)
    taps = zoom_taps(view, out, grid, largest + 2)
    return zoom_field(field[..., None, :], taps, grid)[0, 0, ..., 0, :].numpy()


def test_a_zoom_of_the_models_size_is_exact():
    values = np.random.default_rng(0).normal(size=(6, 7, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(read(values, 1, 2, 4, 4, 2, 5), values[1:5, 2:6])


@pytest.mark.parametrize("size", [10, 12, 14, 16])
def test_zoom_reads_a_linear_field_at_the_models_points(size):
    """The position itself, stored at the grid, must come out as the model's grid on the canvas."""
    top, left = 16 - size, 2
    points = read(grid_points(16, 20, SPEC), top, left, size, 14, 2)
    scale = 14 / size
    expected = np.array([left, top]) * 16 - 0.5 + (grid_points(14, 14, SPEC) + 0.5) / scale
    # beyond the canvas' last point the stored grid's border is read
    np.testing.assert_allclose(points, np.clip(expected, 3.5, [315.5, 251.5]), atol=1e-3)


def test_zoom_reads_one_point_a_patch_too():
    points = read(grid_points(8, 8, TargetSpec(points=1)), 2, 2, 4, 2, 1)
    np.testing.assert_allclose(points[0, 0, 0], [47.5, 47.5])


def test_an_invalid_point_spoils_exactly_what_reads_it():
    spoilt = np.zeros((16, 16, 4, 1), np.float32)
    spoilt[5, 5, 3] = 1
    weight = read(spoilt, 0, 0, 16, 14, 2)
    assert 1 <= (weight > 0).sum() <= 4
    # at equal spacing a point is read alone, with its whole weight
    assert sorted(np.unique(read(spoilt, 0, 0, 14, 14, 2))) == [0, 1]


@pytest.mark.parametrize("out", [32, 224])
def test_matrices_resize_as_opencv_does(out):
    """Area filter down, cubic up, for each clip of a batch, from another memory than its crop."""
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (7, 2, 256, 256, 3), dtype=np.uint8))
    size = torch.arange(10, 17)
    expected = zoom_frames(frames, size, out, 16)  # OpenCV, on a CPU
    weights = _filter(size * 16, out, 256)
    planes = frames.permute(0, 4, 1, 2, 3).float()
    resized = weights[:, None, None] @ planes @ weights[:, None, None].mT
    levels = resized.round().clamp(0, 255).permute(0, 2, 3, 4, 1)
    assert (levels - expected).abs().max() <= 1
    if out == 224:
        assert torch.equal(levels[4].to(torch.uint8), frames[4, :, :224, :224])


@pytest.mark.parametrize("size", [10, 16])
def test_the_zoomed_image_and_the_zoomed_points_agree(size):
    """A blob on the canvas and the point that follows it land on the same pixel of the zoom."""
    canvas = np.zeros((256, 320, 3), np.float32)
    point = np.array([150.0, 120.0])
    canvas[120, 150] = 1
    canvas = cv2.GaussianBlur(canvas, (0, 0), 4)
    canvas = (canvas / canvas.max() * 255).astype(np.uint8)
    crop = np.zeros((1, 1, 256, 256, 3), np.uint8)
    crop[0, 0, : 16 * size, : 16 * size] = canvas[: 16 * size, 32 : 32 + 16 * size]
    out = zoom_frames(torch.from_numpy(crop), torch.tensor([size]), 224, 16)[0, 0].numpy()
    weight = out[..., 0].astype(float)
    y, x = (np.average(axis, weights=weight) for axis in np.indices(weight.shape))
    shift = torch.eye(3)
    shift[:2, 2] = torch.tensor([8.0, 4.0])
    scale = 14 / size
    expected = scale * (point - [32, 0] + 0.5) - 0.5
    np.testing.assert_allclose([x, y], expected, atol=0.1)
    view = torch.tensor([[0, 2, size, 16, 20]])
    moved = zoom_homography(shift[None, None], view, 14, 16)[0, 0].numpy() @ [x, y, 1]
    np.testing.assert_allclose(moved[:2], [x + 8 * scale, y + 4 * scale], atol=1e-3)


def test_a_zoomed_homography_moves_the_zoomed_points():
    rng = np.random.default_rng(0)
    homography = np.eye(3) + rng.normal(size=(3, 3)) * [
        [1e-2, 1e-2, 3],
        [1e-2, 1e-2, 3],
        [1e-5] * 2 + [0],
    ]
    points = rng.uniform(50, 200, (20, 2))

    def apply(matrix, xy):
        mapped = np.c_[xy, np.ones(len(xy))] @ matrix.T
        return mapped[:, :2] / mapped[:, 2:]

    def to_crop(xy):
        return 1.4 * (xy - [64, 48] + 0.5) - 0.5

    view = torch.tensor([[3, 4, 10, 16, 20]])
    zoomed = zoom_homography(torch.from_numpy(homography)[None], view, 14, 16)[0].numpy()
    np.testing.assert_allclose(
        apply(zoomed, to_crop(points)), to_crop(apply(homography, points)), atol=1e-3
    )


@pytest.mark.parametrize(("zoom", "mask"), [((), "motion"), ((3, 4), "tube"), ((3, 4), "motion")])
def test_a_batch_is_assembled_as_its_clips_are(demo_store, zoom, mask):
    clips = ClipDataset(demo_store, frames=4, image_size=48, zoom=zoom, mask=mask)
    parts = [clips.fetch((epoch, video)) for epoch in range(2) for video in range(6)]
    coded = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    batch = assemble(coded, clips.spec)
    for place, values in enumerate(zip(*batch.values())):
        sample = clips[divmod(place, 6)]
        assert sample.keys() == batch.keys()
        for name, value in zip(batch, values):
            torch.testing.assert_close(value, sample[name], rtol=1e-5, atol=1e-5)


def test_a_batch_without_zoom_stays_as_it_is(demo_store):
    coded = ClipDataset(demo_store, frames=4, image_size=48).fetch(0)
    batch = assemble(coded, SPEC)
    assert batch.keys() == coded.keys() and all(batch[name] is coded[name] for name in coded)


def test_it_compiles_without_a_break(demo_store):
    """All shapes come from the batch's shapes: any drawn zoom runs through one graph."""
    clips = ClipDataset(demo_store, frames=4, image_size=48, zoom=(3, 4), mask="motion")
    compiled = torch.compile(
        lambda batch: assemble(batch, clips.spec), fullgraph=True, backend="eager"
    )
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    for epoch in range(6):
        coded = clips.fetch((epoch, 0))
        batch, expected = compiled(coded), assemble(coded, clips.spec)
        assert (batch["frames"].int() - expected["frames"].int()).abs().max() <= 1
        torch.testing.assert_close(batch["displacement"], expected["displacement"])
        assert torch.equal(batch["mask"], expected["mask"])
    assert graphs["unique_graphs"] == 1
