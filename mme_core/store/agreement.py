"""Whether the shards of a store that has lost its store.json were made with a specification."""

from __future__ import annotations

from mme_core.errors import StoreError
from mme_core.io.place import Place
from mme_core.store.layout import STORE, shard_name
from mme_core.store.table import read_attributes, shard_numbers


def check_shards(place: Place, spec_hash: str) -> None:
    """Raises StoreError, which names a shard that was made with another specification.

    A hash does not say which fields differ. A damaged shard is passed over: it says nothing.
    """
    for number in shard_numbers(place):
        if _hash_of(place, number) not in (None, spec_hash):
            raise StoreError(
                f"{place.at(shard_name(number))} was made with another specification than the one "
                f"asked for, and {STORE}, which would say where they differ, is missing: give the "
                "specification (spec.FIELD=VALUE) of the first run, or use another store"
            )


def _hash_of(place: Place, number: int) -> str | None:
    try:
        attributes = read_attributes(place, number)
    except StoreError:
        return None
    return attributes.get("spec_hash") if attributes else None
