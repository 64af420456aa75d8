"""Checks of a store before a run trains on it."""

from __future__ import annotations

from mme_core.errors import StoreError
from mme_core.io.place import open_place
from mme_core.store import TargetStore
from mme_core.store.layout import LOCK
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


def check_finished(store: TargetStore) -> None:
    """Raises StoreError for a store that is being written: its list of videos may still change."""
    if open_place(store.url).exists(LOCK):
        raise StoreError(
            f"{store.url} is being written, or was left unfinished ({LOCK} is in it): run `mme "
            "flows` until it is done"
        )


def check_same_spec(store: TargetStore, val: TargetStore) -> None:
    """Raises StoreError naming the first field in which the held-out store differs."""
    differing = val.spec.differences(store.spec)
    if differing:
        raise StoreError(
            f"{val.url} has another specification than {store.url}: spec.{differing[0]}"
        )
