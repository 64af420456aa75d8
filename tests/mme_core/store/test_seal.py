import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mme_core.store.seal import blank, seal, unseal

DOCUMENT = {"format": 2, "name": 'a "digest": "' + "0" * 64 + '"', "inner": blank()}


def test_a_sealed_document_comes_back():
    document, sealed = unseal(seal(DOCUMENT))
    assert sealed
    assert document["name"] == DOCUMENT["name"]
    assert document["inner"]["digest"] != blank()["digest"]


@given(position=st.integers(0, len(seal(DOCUMENT)) - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(position, bit):
    data = bytearray(seal(DOCUMENT))
    data[position] ^= 1 << bit
    try:
        _, sealed = unseal(bytes(data))
    except ValueError:
        return
    assert not sealed  # the flip hit the digest's own name: a reader of format 2 refuses that


def test_documents_of_format_1_have_no_digest():
    assert unseal(json.dumps({"format": 1}).encode()) == ({"format": 1}, False)


def test_deep_nesting_is_damage():
    with pytest.raises(ValueError, match="nested"):
        unseal(b"[" * 100_000)


def test_a_document_needs_one_place_for_the_digest():
    with pytest.raises(ValueError, match="exactly one"):
        seal({"format": 2})
