import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mme_core import cells
from mme_core.spec import CELLS, TargetSpec

SPEC = TargetSpec(cells=CELLS)


def test_codes_are_exact_to_half_a_step_and_never_clip():
    rng = np.random.default_rng(0)
    sums = rng.gamma(0.3, 5, (3, 2, 4, 6, 18)).astype(np.float32)
    sums[0, 0] = 0
    sums[0, 0, 0, 0, 0] = 1000  # as far from the mean as one number can be
    codes, moments = cells.encode(sums)
    step = (moments[..., 1] + 1e-6) * np.sqrt(4 * 6 * 18 - 1) / 127
    error = np.abs(cells.decode(codes, moments) - sums).max((-3, -2, -1))
    assert (error <= step * 0.501).all() and abs(codes).max() == 127


@given(st.sampled_from(CELLS), st.integers(1, 12))
def test_a_mirror_of_a_mirror_is_the_original(name, bins):
    spec = TargetSpec(hog_bins=bins)
    order = cells.mirrored(name, spec)
    assert sorted(order) == list(range(cells.bins(name, spec)))
    assert [order[bin] for bin in order] == sorted(order)


def test_the_order_of_the_names_does_not_change_the_hash():
    one, other = TargetSpec(cells=("mbh", "hof")), TargetSpec.from_overrides(["spec.cells=hof,mbh"])
    assert one == other and one.hash == other.hash != TargetSpec().hash
    assert TargetSpec.from_dict(one.to_dict()) == one


def test_a_specification_without_cells_is_written_as_before():
    assert "cells" not in TargetSpec().to_dict()
    assert TargetSpec(flow="dis-medium").hash == "aedaa5e4da9c530e"
