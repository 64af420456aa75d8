"""Pictures show directions as colours and tracks at the right place; wrong shapes are refused."""

import errno

import numpy as np
import pytest

from mme_core import viz
from mme_core.canvas import grid_points
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec
from mme_core.viz import grids
from mme_core.viz.figure import READABLE
from mme_core.viz.film import write_film

SPEC = TargetSpec(length=3)


def black(height=32, width=32):
    return np.zeros((height, width, 3), np.uint8)


def test_rest_is_white_and_motion_coloured():
    vectors = np.array([[0, 0], [2, 0], [4, 0], [np.nan, 1]], float)
    rest, fast, faster, unknown = viz.motion_colour(vectors, limit=2.0)
    assert rest.tolist() == [255, 255, 255]
    assert fast.tolist() == faster.tolist() == [255, 0, 0]
    assert len(set(unknown.tolist())) == 1 and unknown[0] < 255


def test_directions_have_distinct_colours_all_round():
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    colours = viz.motion_colour(around, limit=1.0).astype(int)
    step = np.abs(colours - np.roll(colours, 1, axis=0)).max(axis=1)
    assert (step > 20).all() and len(np.unique(colours, axis=0)) == 24
    assert step.max() < 200  # no jump where the circle closes


def test_speed_limit_ignores_outliers_and_gaps():
    vectors = np.ones((1000, 2))
    vectors[0], vectors[1] = 1e6, np.nan
    assert viz.speed_limit(vectors) == pytest.approx(np.sqrt(2))
    assert viz.speed_limit(np.zeros((4, 2))) == viz.speed_limit(np.zeros((0, 2))) == 0.5


@pytest.mark.parametrize("scale", [1, 4])
def test_track_is_drawn_where_the_point_was(scale):
    path = np.array([[[4, 10], [12, 10], [20, 10]]], float)
    picture = viz.draw_tracks(black(), path, [True], scale=scale)
    assert picture.shape == (32 * scale, 32 * scale, 3)
    rows, columns = np.nonzero(picture.sum(-1))
    assert rows.mean() == pytest.approx((10 + 0.5) * scale - 0.5, abs=0.3 * scale)
    assert columns.min() == pytest.approx((4 + 0.5) * scale, abs=scale)
    assert columns.max() == pytest.approx((20 + 0.5) * scale, abs=1.5 * scale)


def test_tail_fades_and_turns_with_the_direction():
    path = np.array([[[4, 4], [14, 4], [14, 14], [14, 24]]], float)
    picture = viz.draw_tracks(black(), path, [True], limit=5.0).astype(int)
    right, down = picture[4, 9], picture[19, 14]
    assert right.max() < down.max()
    assert right[0] > 2 * right[1] and down[1] > 0  # red to the right, yellow downwards


def test_invalid_tracks_are_not_drawn():
    image, path = black(), np.array([[[4, 4], [20, 20]]], float)
    assert not viz.draw_tracks(image, path, [False]).any()
    viz.draw_tracks(image, path, [True])
    assert not image.any()


def test_tracks_may_leave_the_picture():
    path = np.array([[[4, 4], [-3000, 9000]]], float)
    assert viz.draw_tracks(black(), path, [True]).shape == (32, 32, 3)


def test_arrow_follows_the_vector_and_rest_is_a_dot():
    arrow = viz.draw_arrows(black(), [[4, 16]], [[20, 0]], [True])
    dot = viz.draw_arrows(black(), [[4, 16]], [[0.1, 0]], [True])
    tip, tail = (arrow[:, columns].any(-1).sum() for columns in (slice(16, 32), slice(4, 12)))
    assert tip > tail > 0
    assert 0 < dot.any(-1).sum() < 16


def test_flow_picture_fills_each_points_own_cell():
    vectors = np.zeros((1, 2, 4, 2))
    vectors[0, 1, 2] = [3, 0]  # lower left cell of the right patch
    valid = np.ones((1, 2, 4), bool)
    valid[0, 0, 0] = False
    picture = viz.flow_picture(vectors, valid, SPEC, limit=3.0)
    assert picture.shape == (16, 32, 3)
    assert (picture[8:, 16:24] == [255, 0, 0]).all() and (picture[8:, 24:] == 255).all()
    assert (picture[:8, :8] == 128).all()


def test_glyph_lies_along_the_edge():
    # gradient along y (bin centre 90 degrees): the edge is horizontal
    hog = np.zeros((1, 9))
    hog[0, 4] = 1
    picture = viz.draw_hog(black(16, 16), np.array([[8, 8]]), hog, SPEC, scale=4)
    rows, columns = np.nonzero(picture.sum(-1))
    assert np.ptp(columns) > 20 > 4 > np.ptp(rows)


def make_figure(n=2, h=3, w=4, length=3, **options):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2 * n, 16 * h, 16 * w, 3), np.uint8)
    mask = np.zeros((n, h, w), bool)
    mask[:, 1:, 1:] = True
    true = rng.normal(0, 2, (n, h, w, 4, length, 2))
    return frames, mask, true, viz.figure4(frames, mask, true, true * 0.5, SPEC, "words", **options)


def test_no_valid_point_is_no_glyph():
    picture = viz.draw_hog(black(16, 16), np.empty((0, 2)), np.empty((0, 9)), SPEC, scale=2)
    assert picture.shape == (32, 32, 3) and not picture.any()


def test_trails_are_arrows_with_their_head_at_the_end():
    path = np.array([[[4, 16], [10, 16], [20, 16]], [[4, 28], [4.2, 28], [4, 28]]], float)
    picture = viz.draw_trails(black(), path, [True, False], limit=5.0, scale=3).sum(-1)
    columns = np.flatnonzero(picture.any(0))
    assert columns.min() < 4 * 3 + 2 and columns.max() > 20 * 3  # from the start, past the end
    height = (picture > 0).sum(0)
    assert height[3 * 19] > height[3 * 12] >= 2  # the head is wider than the shaft
    still = viz.draw_trails(black(), path, [False, True], limit=5.0, scale=3).sum(-1)
    rows, columns = np.nonzero(still)
    assert 2 <= np.ptp(rows) <= 6 and 2 <= np.ptp(columns) <= 6
    assert not viz.draw_trails(black(), path, [False, False], limit=5.0).any()


def test_figure_has_four_rows_and_a_column_per_tubelet():
    *_, two = make_figure(n=2)
    *_, four = make_figure(n=4)
    cell = 4 * grids.readable_scale(48, 64, READABLE) * 16 + grids.GAP
    assert four.shape[1] - two.shape[1] == 2 * cell
    assert two.shape[0] > 4 * READABLE and two.dtype == np.uint8


def test_predicted_row_hides_masked_patches():
    """The picture of a hidden patch must not be visible behind its prediction."""
    frames, mask, true, figure = make_figure()
    other = frames.copy()
    hidden = mask[0].repeat(16, 0).repeat(16, 1)
    other[0][hidden] = 255 - other[0][hidden]
    changed = viz.figure4(other, mask, true, true * 0.5, SPEC, "words") != figure
    rows = np.flatnonzero(changed.any((1, 2)))
    height = 48 * grids.readable_scale(48, 64, READABLE) + grids.GAP
    assert set((rows // height).tolist()) == {1, 3}  # true and original only


def test_figure_leaves_out_invalid_trajectories():
    valid = np.zeros((2, 3, 4, 4), bool)
    frames, mask, true, figure = make_figure(valid=valid)
    nothing = viz.figure4(frames, np.zeros_like(mask), true, true, SPEC, "words")
    height = 48 * grids.readable_scale(48, 64, READABLE) + grids.GAP
    assert (figure[height : 2 * height] == nothing[height : 2 * height]).all()


def test_figure_names_the_array_with_the_wrong_shape():
    with pytest.raises(UsageError, match="frames have shape"):
        viz.figure4(black()[None], np.ones((2, 2, 2), bool), None, None, SPEC, "")
    frames, mask, true, _ = make_figure()
    with pytest.raises(UsageError, match="predicted displacement"):
        viz.figure4(frames, mask, true, true[:1], SPEC, "")


def test_captions_wrap_and_never_lose_words():
    short = grids.text_bar("one line", 400)
    long = grids.text_bar("many words " * 20, 400)
    assert short.shape[1] == long.shape[1] == 400 and long.shape[0] > 3 * short.shape[0]


def test_grid_is_padded_white():
    sheet = grids.grid([black(10, 10)] * 3, columns=2)
    assert sheet.shape == (24, 24, 3) and (sheet[14:, 14:] == 255).all()


def test_points_and_paths_agree_with_the_grid():
    starts = grid_points(2, 2, SPEC)
    picture = viz.draw_tracks(
        black(), starts.reshape(-1, 1, 2), np.ones(16, bool), heads=True, scale=2
    )
    assert picture[round((starts[0, 0, 0, 1] + 0.5) * 2), round((3.5 + 0.5) * 2)].any()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_or_interrupted_write_leaves_no_part_of_a_film(tmp_path, error):
    def pictures():
        yield from [black()] * 100  # the encoder writes when it has seen some
        raise error

    with pytest.raises(type(error)):
        write_film(tmp_path / "film.mp4", pictures(), fps=10)
    assert list(tmp_path.iterdir()) == []
