import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.errors import UsageError
from mme_core.masking import MASKS, _random_box, hidden_count, hidden_per_tubelet, make_mask

PAPER = (8, 14, 14)


def draw(kind, shape, ratio, seed=0):
    rng = np.random.default_rng(seed)
    return make_mask(kind, shape, ratio, rng, rng.random(shape[1:]))


@pytest.mark.parametrize("kind", MASKS)
def test_the_paper_hides_137_of_196_in_every_tubelet(kind):
    for seed in range(20):
        mask = draw(kind, PAPER, 0.7, seed)
        assert mask.shape == PAPER and mask.dtype == bool
        assert mask.sum() == 8 * 137


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(MASKS)),
    shape=st.tuples(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9)),
    ratio=st.floats(0.3, 0.7),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_draw_hides_the_same_number(kind, shape, ratio, seed):
    mask = draw(kind, shape, ratio, seed)
    assert mask.sum() == hidden_count(shape, ratio)
    assert np.array_equal(mask, draw(kind, shape, ratio, seed))


@pytest.mark.parametrize("kind", ["tube", "motion"])
def test_tubes_do_not_change_over_time_and_differ_between_draws(kind):
    first, second = draw(kind, PAPER, 0.7, 1), draw(kind, PAPER, 0.7, 2)
    assert (first == first[:1]).all()
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", [kind for kind in MASKS if kind != "future"])
def test_every_token_is_hidden_equally_often_but_for_motion_and_borders(kind):
    draws = np.mean([draw(kind, (4, 8, 8), 0.5, seed) for seed in range(400)], axis=0)
    assert draws.mean() == pytest.approx(0.5)
    assert draws.min() > 0.05 and draws.max() < 0.95


def test_cubes_are_blocks_in_space_and_time():
    """A hidden token's neighbours, in space and time, are hidden more often than at random."""
    for axis in range(3):
        agree = {}
        for kind in ("cube", "random"):
            masks = [draw(kind, PAPER, 0.4, seed) for seed in range(20)]
            pairs = [(m.take(range(1, m.shape[axis]), axis), np.delete(m, -1, axis)) for m in masks]
            agree[kind] = np.mean([np.mean(a == b) for a, b in pairs])
        assert agree["cube"] > agree["random"] + 0.2


def test_half_of_the_visible_tubes_are_where_motion_is():
    motion = np.zeros((14, 14))
    motion[:7, :7] = np.arange(1, 50).reshape(7, 7)  # a quarter of the patches
    for seed in range(10):
        mask = make_mask("motion", PAPER, 0.7, np.random.default_rng(seed), motion)
        assert (~mask[0, :7, :7]).sum() == 59 // 2
    static = [
        make_mask("motion", PAPER, 0.7, np.random.default_rng(seed), np.zeros((14, 14)))
        for seed in range(200)
    ]
    assert np.mean(static, axis=0).min() > 0.5  # no favourites in a static video


@pytest.mark.parametrize(
    ("kind", "ratio", "motion", "word"),
    [
        ("tubes", 0.7, None, "kind="),
        ("tube", 1.0, None, "ratio="),
        ("random", 0.0, None, "ratio="),
        ("motion", 0.7, None, "motion"),
        ("motion", 0.7, np.zeros((3, 3)), "motion map"),
    ],
)
def test_bad_settings_name_the_field(kind, ratio, motion, word):
    with pytest.raises(UsageError, match=word):
        make_mask(kind, PAPER, ratio, np.random.default_rng(0), motion)


def test_the_hidden_share_is_rounded_to_the_nearest_number():
    assert [hidden_per_tubelet((8, 3, 3), ratio) for ratio in (0.75, 0.7, 0.6)] == [7, 6, 5]


def test_the_moving_visible_tubes_are_drawn_from_the_whole_quarter():
    motion = np.arange(196.0).reshape(14, 14)
    seen = [
        ~make_mask("motion", PAPER, 0.7, np.random.default_rng(i), motion)[0] for i in range(50)
    ]
    assert np.any(seen, axis=0).ravel()[-49:].all()


def test_the_boxes_of_a_cube_mask_cover_8_to_50_percent():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        _, rows, columns = _random_box(PAPER, rng)
        shares.append((rows.stop - rows.start) * (columns.stop - columns.start) / 196)
    assert 0.06 < min(shares) < 0.1 and 0.45 < max(shares) < 0.55


@pytest.mark.parametrize("ratio", [float("nan"), -0.5, 1.5])
def test_a_share_that_is_none_is_refused(ratio):
    with pytest.raises(UsageError, match=r"^ratio=.* must be between 0 and 1"):
        hidden_per_tubelet(PAPER, ratio)


def test_future_mask_hides_the_later_tubelets():
    mask = make_mask("future", (8, 7, 7), 0.7, np.random.default_rng(0)).reshape(8, 49)
    hidden = mask.sum(1)
    assert hidden.sum() == hidden_count((8, 7, 7), 0.7)
    assert hidden.tolist() == sorted(hidden) and hidden[0] == 0
    assert set(hidden[3:]) == {47}, "5 % of the patches of a later tubelet stay"
    assert len({tuple(row) for row in mask[3:]}) > 1, "other patches in each tubelet"
