import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion import displacement, render, rotation, translation, write_video

from mme_core.canvas import grid_points, plan_canvas
from mme_core.cells import STILL, mirrored
from mme_core.errors import UsageError
from mme_core.extract import extract_video
from mme_core.extract.cells import FlowCells
from mme_core.spec import CELLS, TargetSpec

SPEC = TargetSpec(short_side=64, long_side=80, cells=CELLS)
CANVAS = plan_canvas(64, 80, SPEC)


def by_hand(flow, spec, name):
    """HOF or MBH of the canvas' cells, pixel by pixel: [rows of cells, columns of cells, D]."""
    height, width = flow.shape[:2]
    size = spec.hog_cell
    grown = np.pad(flow.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    result = np.zeros((height // size, width // size, 9 if name == "hof" else 18))
    for y in range(height):
        for x in range(width):
            cell = result[y // size, x // size]
            if name == "hof":
                speed = np.hypot(*flow[y, x].astype(float))
                if speed < STILL:
                    cell[8] += 1
                    continue
                place = np.degrees(np.arctan2(flow[y, x, 1], flow[y, x, 0])) % 360 / 45
                votes = [(speed, place, 8, 0)]
            else:
                right, left = grown[y + 1, x + 2], grown[y + 1, x]
                below, above = grown[y + 2, x + 1], grown[y, x + 1]
                gx, gy = right - left, below - above
                angles = np.degrees(np.arctan2(gy, gx)) % 180 / 20 - 0.5
                votes = [(np.hypot(gx[i], gy[i]), angles[i], 9, 9 * i) for i in (0, 1)]
            for weight, place, bins, first in votes:
                low, part = int(np.floor(place)), place % 1
                cell[first + low % bins] += weight * (1 - part)
                cell[first + (low + 1) % bins] += weight * part
    return result


def in_rows(values, canvas, spec):
    """[N, D] -> [rows of cells, columns of cells, D]."""
    grid = values.reshape(canvas.hp, canvas.wp, spec.grid, spec.grid, -1)
    return grid.transpose(0, 2, 1, 3, 4).reshape(canvas.hp * 2, canvas.wp * 2, -1)


@pytest.mark.parametrize("name", ["hof", "mbh"])
def test_histograms_are_those_of_the_definition(name):
    flow = np.random.default_rng(0).normal(0, 1, (64, 80, 2)).astype(np.float32)
    found = FlowCells(CANVAS, SPEC).of(flow)[name]
    np.testing.assert_allclose(in_rows(found, CANVAS, SPEC), by_hand(flow, SPEC, name), atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.2, 1.0, 8.0]))
def test_the_mirrored_flow_has_the_mirrored_histograms(seed, speed):
    flow = np.random.default_rng(seed).normal(0, speed, (64, 80, 2)).astype(np.float32)
    flow[:8, :8] = 0
    found = FlowCells(CANVAS, SPEC).of(flow)
    other = FlowCells(CANVAS, SPEC).of(flow[:, ::-1] * np.float32([-1, 1]))
    for name in found:
        image = in_rows(other[name], CANVAS, SPEC)[:, ::-1][..., mirrored(name, SPEC)]
        np.testing.assert_allclose(image, in_rows(found[name], CANVAS, SPEC), rtol=1e-4, atol=1e-3)


def test_the_region_around_the_canvas_is_left_out():
    canvas = plan_canvas(64, 100, SPEC)  # 80 of 100 columns
    assert canvas.offset == (10, 0)
    flow = np.random.default_rng(0).normal(0, 1, (64, 100, 2)).astype(np.float32)
    inner = FlowCells(canvas, SPEC).of(flow)
    np.testing.assert_array_equal(inner["hof"], FlowCells(CANVAS, SPEC).of(flow[:, 10:90])["hof"])
    outer = FlowCells(CANVAS, SPEC).of(flow[:, 10:90])["mbh"]
    inside = in_rows(inner["mbh"], canvas, SPEC)[:, 1:-1]
    np.testing.assert_array_equal(inside, in_rows(outer, CANVAS, SPEC)[:, 1:-1])


def test_a_videos_cells_stay_where_they_are(tmp_path):
    """HOF of a translation is its speed and direction; MBH of a rotation is the same in all."""
    write_video(tmp_path / "t.mp4", render(translation(2.0, 2.0), 9, 64, 80))
    found = extract_video(tmp_path / "t.mp4", SPEC)
    hof = found.cells["hof"][0, 1:3, 1:4]
    np.testing.assert_allclose(hof[..., 1].mean(), 64 * np.sqrt(8), rtol=0.1)
    assert hof[..., 1].sum() > 0.9 * hof.sum()
    np.testing.assert_array_equal(found.cells["hog"][..., 0, :], found.hog[..., 0, :])
    assert abs(found.cells["hog"][0, ..., 5, :] - found.hog[0, ..., 5, :]).max() > 0.1

    turn = rotation(3.0, (40, 32))
    write_video(tmp_path / "r.mp4", render(turn, 9, 64, 80))
    found = extract_video(tmp_path / "r.mp4", SPEC)
    exact = displacement(turn, 0, grid_points(4, 5, SPEC))
    assert np.median(abs(found.displacement[0, ..., 0, :] - exact)) < 0.1
    mbh = found.cells["mbh"][0, 1:3, 1:4, :, 0]
    expected = 64 * 2 * np.radians(3)  # gradient over two pixels: x along y, y along x
    np.testing.assert_allclose(mbh[..., :9].sum(-1).mean(), expected, rtol=0.3)
    assert mbh[..., 3:6].sum() > 0.8 * mbh[..., :9].sum()
    assert mbh[..., [9, 17]].sum() > 0.8 * mbh[..., 9:].sum()


def test_cells_must_tile_the_patch():
    with pytest.raises(UsageError, match=r"spec\.hog_cell=6 must be patch / √points = 8"):
        TargetSpec(cells=("hof",), hog_cell=6)
    with pytest.raises(UsageError, match=r"spec\.cells=speed is not one of hog, hof, mbh"):
        TargetSpec(cells=("speed",))
