import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core import targets
from mme_core.spec import TargetSpec

SPEC = TargetSpec()
PIXELS = st.floats(-40, 40, width=32)
DISPLACEMENTS = hnp.arrays(np.float32, (2, 4, 6, 2), elements=PIXELS)
HOGS = hnp.arrays(np.float32, (2, 4, 6, 9), elements=st.floats(0, 90, width=32))


@settings(max_examples=60, deadline=None)
@given(DISPLACEMENTS, HOGS)
def test_raw_values_come_back_within_the_step(displacement, hog):
    position, shape, moments = targets.encode(displacement, hog, SPEC)
    assert position.dtype == shape.dtype == np.int8 and moments.shape == (2, 6)
    error = np.abs(targets.decode_displacement(position, moments, SPEC) - displacement)
    step = (moments[:, None, None, 2:4] + 1e-6) / targets.position_scale(SPEC)
    assert (error <= 0.51 * step + 1e-5).all()
    error = np.abs(targets.decode_hog(shape, moments, SPEC) - hog)
    step = (moments[:, None, None, 5:6] + 1e-6) / targets.shape_scale(SPEC)
    assert (error <= 0.51 * step + 2e-5).all()


def test_the_most_extreme_number_of_a_group_uses_the_last_code():
    displacement = np.zeros((1, 4, 6, 2), np.float32)
    displacement[0, 0, 0, 0] = 7  # one outlier: Samuelson's bound holds with equality
    displacement[0, 0, 0, 1] = -7
    position, _, _ = targets.encode(displacement, np.zeros((1, 4, 6, 9), np.float32), SPEC)
    assert position[0, 0, 0].tolist() == [127, -127]


def test_rounded_moments_move_no_value_by_a_tenth_of_a_step():
    rng = np.random.default_rng(0)
    moments = rng.normal(0, 3, (200, 6)).astype(np.float32)
    moments[:, [2, 3, 5]] = 10 ** rng.uniform(-2, 1, (200, 3))
    rounded = targets.round_moments(moments, SPEC)
    for code in (-127, 127):  # where an error of the deviation counts most
        position, shape = np.full((200, 4, 6, 2), code, "i1"), np.full((200, 4, 6, 9), code, "i1")
        for decode, codes, scale, deviation in (
            (targets.decode_displacement, position, targets.position_scale(SPEC), slice(2, 4)),
            (targets.decode_hog, shape, targets.shape_scale(SPEC), slice(5, 6)),
        ):
            error = np.abs(decode(codes, rounded, SPEC) - decode(codes, moments, SPEC))
            assert (error <= 0.1 * moments[:, None, None, deviation] / scale).all()
    assert (rounded != moments).mean() > 0.9


def test_equal_numbers_have_no_deviation():
    displacement = np.full((3, 4, 6, 2), 3.1, np.float32)
    position, _, moments = targets.encode(displacement, np.ones((3, 4, 6, 9), np.float32), SPEC)
    assert not position.any() and not moments[:, 2:4].any()
    assert (targets.decode_displacement(position, moments, SPEC) == displacement).all()


def test_patch_normalisation_has_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (5, 7, 4, 6, 2)).astype(np.float32)
    normalised = targets.normalise(values).reshape(35, -1)
    assert np.allclose(normalised.mean(1), 0, atol=1e-5)
    assert np.allclose(normalised.std(1), 1, atol=1e-5)


@given(hnp.arrays(bool, (3, 5, 4)))
def test_validity_round_trip(valid):
    assert (targets.unpack_valid(targets.pack_valid(valid), 4) == valid).all()


def test_bit_k_is_trajectory_k():
    assert targets.pack_valid(np.array([[False, True, False, False]])).tolist() == [2]


@settings(max_examples=60, deadline=None)
@given(DISPLACEMENTS, st.sampled_from([(-3, -2, -1), (-3,)]), st.sampled_from([0.0, 0.25]))
def test_arrays_and_tensors_are_normalised_alike(values, axes, floor):
    array = targets.normalise(values, axes, floor)
    tensor = targets.normalise(torch.from_numpy(values), axes, floor)
    assert array.dtype == np.float32 and tensor.dtype == torch.float32
    np.testing.assert_allclose(array, tensor, atol=2e-4)


def test_a_group_of_equal_numbers_normalises_to_zero():
    values = np.full((3, 4, 6, 2), 5.1, np.float32)
    assert np.abs(targets.normalise(values)).max() == 0
    assert targets.normalise(torch.from_numpy(values)).abs().max() == 0


def test_codes_do_not_wrap_where_the_deviation_is_rounded_down():
    centred = np.float32([[-1.01, 1.01]])
    codes = targets.quantise(centred, np.float32([[1.0]]), targets.INT8_MAX)
    assert codes.tolist() == [[-127, 127]]
