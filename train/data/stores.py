"""Checks of a store before a run trains on it."""

from __future__ import annotations

from dataclasses import replace

from mme_core.errors import StoreError, UsageError, listed
from mme_core.io.place import open_place
from mme_core.io.remote import join
from mme_core.store import StoreUnion, TargetStore
from mme_core.store.layout import LEDGER, LOCK, shard_name
from mme_core.store.table import lost_shards
from mme_core.store.union import CODING, check_agreement
from train.data.staging import open_staged
from train.recipes.pretraining import PretrainConfig


def check_spec(store: TargetStore | StoreUnion, config: PretrainConfig) -> None:
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


def unread_root(key: str, root: str, store: str) -> UsageError:
    """The error for a folder of video files that `key` names and that nobody reads."""
    return UsageError(
        f"{key}={root} is not read, since the frames are those of {store}: leave it out, or set "
        "data.frames=video to read the store's video files"
    )


def check_root(store: TargetStore | StoreUnion, root: str | None, frames: str) -> None:
    """Raises UsageError for a folder of video files, `data.root`, that nobody reads."""
    if root is None:
        return
    if frames == "store":
        raise unread_root("data.root", root, store.url)
    paths = store.videos["path"]
    if all(join(root, path) == path for path in paths):
        raise UsageError(
            f"data.root={root} is not read, since {store.url} names its videos by absolute paths, "
            f"such as {paths[0]}: leave it out"
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
        raise StoreError(
            f"{store.url} has lost {listed(lost)}: run `mme repair {store.url}`, "
            f"which makes what is missing anew ({LEDGER} says which videos were there)"
        )


def open_training(
    named: str | list[str], stage: str | None, stage_gb: float | None
) -> TargetStore | StoreUnion:
    """The store, or several as one; read from copies in the folder `stage` as far as it has them.

    stage_gb  largest size of the folder, 10⁹ bytes: each store may fill an equal part of it

    Raises StoreError for what is not there, unfinished, or does not agree.
    """
    urls = [named] if isinstance(named, str) else named
    part = None if stage_gb is None else stage_gb / len(urls)
    opened = [open_staged(url, stage, part) if stage else TargetStore(url) for url in urls]
    for store in opened:
        check_complete(store)
    return opened[0] if len(opened) == 1 else StoreUnion(opened)


def check_same_spec(store: TargetStore | StoreUnion, val: TargetStore) -> None:
    """Raises StoreError naming the first field in which the held-out store differs.

    It may code its frames in another way. A union's held-out store may differ in the same fields as
    the union's own stores.
    """
    if isinstance(store, StoreUnion):
        check_agreement(store.stores[0], val)
        return
    spec = val.spec
    if "none" not in (spec.frames, store.spec.frames):
        spec = replace(spec, **{name: getattr(store.spec, name) for name in CODING})
    differing = spec.differences(store.spec, f"in {val.url}", f"in {store.url}")
    if differing:
        raise StoreError(
            f"spec.{differing[0]}: make the held-out store with the specification of the training "
            "store"
        )
