"""Checks of a store before a run trains on it."""

from __future__ import annotations

from mme_core.errors import StoreError
from mme_core.io.place import open_place
from mme_core.store import TargetStore
from mme_core.store.layout import LEDGER, LOCK, shard_name
from mme_core.store.table import lost_shards
from train.recipes.pretraining import PretrainConfig


def check_spec(store: TargetStore, config: PretrainConfig) -> None:
    """Raises StoreError naming the field of the store's specification that the recipe cannot use.

    `ClipDataset` and `content_sizes` check the other fields: canvas, frames, length, camera, and
    that a video is as long as a clip.
    """
    for field, key, wanted in (
        ("stride", "data.stride", config.data.stride),
        ("patch", "model.patch", config.model.patch),
        ("points", "target.points", config.target.points),
    ):
        value = getattr(store.spec, field)
        if wanted not in (None, value):
            raise StoreError(
                f"{store.url}: spec.{field}={value} does not fit the recipe's {key}={wanted}: "
                f"change {key}, or make a store with spec.{field}={wanted}"
            )


def check_complete(store: TargetStore) -> None:
    """Raises StoreError for a store that is being written, or that has lost a shard."""
    place = open_place(store.url)
    if place.exists(LOCK):
        raise StoreError(
            f"{store.url} is being written, or was left unfinished ({LOCK} is in it): run `mme "
            "flows` until it is done"
        )
    lost = [shard_name(number) for number in lost_shards(place)]
    if lost:
        more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
        raise StoreError(
            f"{store.url} has lost {', '.join(lost[:8])}{more}: run `mme repair {store.url}`, "
            f"which makes what is missing anew ({LEDGER} says which videos were there)"
        )


def check_same_spec(store: TargetStore, val: TargetStore) -> None:
    """Raises StoreError naming the first field in which the held-out store differs."""
    differing = val.spec.differences(store.spec)
    if differing:
        raise StoreError(
            f"{val.url} has another specification than {store.url}: spec.{differing[0]}"
        )
