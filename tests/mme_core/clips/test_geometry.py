import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.clips.geometry import View, centre_view, draw_view


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 20), st.integers(4, 20), st.integers(0, 6))
def test_drawn_views_are_inside_the_canvas(seed, hp, wp, room):
    view = draw_view(np.random.default_rng(seed), hp, wp, (4, 4 + room), flip=False)
    assert 4 <= view.size <= min(4 + room, hp, wp)
    assert 0 <= view.top <= hp - view.size and 0 <= view.left <= wp - view.size
    assert not view.flip


def test_every_place_size_and_flip_is_drawn_and_switching_flip_keeps_the_rest():
    def draw(flip):
        return [draw_view(np.random.default_rng(i), 5, 6, (4, 5), flip) for i in range(400)]

    views = draw(True)
    assert len({(v.top, v.left, v.size) for v in views}) == 2 * 3 + 1 * 2
    assert 150 < sum(v.flip for v in views) < 250
    assert [(v.top, v.left, v.size) for v in draw(False)] == [
        (v.top, v.left, v.size) for v in views
    ]


def test_centre_view():
    assert centre_view(16, 20, 14) == View(1, 3, 14)
