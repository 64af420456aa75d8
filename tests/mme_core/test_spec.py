"""The specification's hash and its fields, and what older stores mean by a missing field."""

import pytest

from mme_core.errors import UsageError
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
