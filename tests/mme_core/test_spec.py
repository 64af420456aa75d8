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
