"""The specification's hash and its fields, and what older stores mean by a missing field."""

import numpy as np
import pytest

from mme_core.errors import UsageError
from mme_core.extract.flow import ALGORITHMS
from mme_core.spec import TargetSpec


def test_a_store_without_the_field_keeps_its_hash():
    old = TargetSpec(flow="dis-medium").to_dict()
    del old["square_pixels"]
    spec = TargetSpec.from_dict(old)
    assert not spec.square_pixels
    assert spec.hash == "ad867e02b31733b3"  # as it was before the field
    assert spec.hash != TargetSpec().hash


def test_a_new_specification_makes_pixels_square():
    assert TargetSpec.from_overrides(["spec.stride=2"]).square_pixels
    assert not TargetSpec.from_overrides(["spec.square_pixels=false"]).square_pixels
    spec = TargetSpec(stride=2)
    assert TargetSpec.from_dict(spec.to_dict()) == spec


def test_an_unknown_field_is_named():
    with pytest.raises(UsageError, match=r"spec\.strides is not a field.*mean spec\.stride\?"):
        TargetSpec.from_dict({"strides": 2})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stride": 4.0}, r"spec\.stride=4\.0 must be a whole number$"),
        ({"stride": "4"}, r"spec\.stride='4' must be a whole number$"),
        ({"points": True}, r"spec\.points=True must be a whole number$"),
        ({"hop": "8"}, r"spec\.hop='8' must be a whole number or None$"),
        ({"check": "yes"}, r"spec\.check='yes' must be true or false$"),
        ({"check": 1}, r"spec\.check=1 must be true or false$"),
        ({"flow": None}, r"spec\.flow=None must be a string$"),
        ({"cells": "hog"}, r"spec\.cells='hog' must be a tuple of strings$"),
        ({"cells": None}, r"spec\.cells=None must be a tuple of strings$"),
        ({"cells": (1,)}, r"spec\.cells=\(1,\) must be a tuple of strings$"),
    ],
)
def test_a_value_of_another_type_is_named(values, message):
    for make in (lambda: TargetSpec(**values), lambda: TargetSpec.from_dict(values)):
        with pytest.raises(UsageError, match=message):
            make()


def test_cells_come_as_a_list_from_json():
    assert TargetSpec.from_dict({"cells": ["mbh", "hog"]}).cells == ("hog", "mbh")


SMALLEST = {
    "dis-ultrafast": 32,
    "dis-fast": 32,
    "dis-medium": 16,
    "dis-tuned": 12,
    "dis-tuned-fast": 16,
}


@pytest.mark.parametrize(("flow", "side"), SMALLEST.items())
def test_a_frame_that_is_too_small_for_the_flow_is_refused(flow, side):
    small = {"patch": 8, "long_side": 8, "flow": flow}
    assert TargetSpec(short_side=side, **small).short_side == side
    message = f"spec.short_side={side - 1} must be at least {side} for spec.flow={flow}: use"
    with pytest.raises(UsageError, match=message):
        TargetSpec(short_side=side - 1, **small)
    for other in ({"flow": "farneback"}, {"tracks": "package.module:function"}):
        assert TargetSpec(short_side=side - 1, **{**small, **other})


@pytest.mark.parametrize("flow", [name for name in ALGORITHMS if name.startswith("dis-")])
@pytest.mark.parametrize("ratio", [1, 3, 20])
def test_dis_computes_the_flow_of_the_smallest_frame(flow, ratio):
    shape = (SMALLEST[flow], ratio * SMALLEST[flow])
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    for first, second in (images, images.transpose(0, 2, 1).copy()):
        assert np.isfinite(ALGORITHMS[flow]()(first, second)).all()
