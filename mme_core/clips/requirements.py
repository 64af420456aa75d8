"""Checks the arguments of a ClipDataset against its store. Each check raises UsageError."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mme_core.errors import UsageError
from mme_core.io.containers import INSIDE, is_inside
from mme_core.io.place import open_place
from mme_core.io.remote import join
from mme_core.masking import MASKS, hidden_per_tubelet
from mme_core.spec import TUBELET
from mme_core.store import StoreUnion, TargetStore

SOURCES = ("store", "video")  # where the frames of a clip come from
CROPS = ("random", "center")


def check_sizes(frames: int, image_size: int, patch: int) -> None:
    if frames < TUBELET or frames % TUBELET:
        raise UsageError(
            f"frames={frames} must be an even number, at least {TUBELET}: a tubelet has "
            f"{TUBELET} frames"
        )
    if image_size < patch or image_size % patch:
        raise UsageError(
            f"image_size={image_size} must be a multiple of the store's spec.patch={patch}"
        )


def check_seed(seed: int) -> None:
    if seed < 0:
        raise UsageError(f"seed={seed} must be at least 0")


def check_choices(crops: int, crop: str, zoom: Sequence[int]) -> None:
    if crop not in CROPS:
        raise UsageError(f"crop={crop} is not one of {', '.join(CROPS)}")
    if crops < 1:
        raise UsageError(f"crops={crops} must be at least 1")
    if zoom and not (len(zoom) == 2 and 1 <= zoom[0] <= zoom[1]):
        raise UsageError(
            f"zoom={list(zoom)} must be the smallest and the largest side of a crop in "
            "patches, such as [10, 16]"
        )


def check_speeds(speeds: Sequence[int], source: str) -> None:
    if any(speed < 1 for speed in speeds):
        raise UsageError(f"speeds={list(speeds)} must be whole numbers of at least 1")
    if speeds and source != "store":
        raise UsageError(f"speeds={list(speeds)} needs source=store: it skips stored frames")


def check_mask(kind: str, ratio: float, shape: tuple[int, int, int]) -> None:
    if kind not in MASKS:
        raise UsageError(f"mask={kind} is not one of {', '.join(MASKS)}")
    hidden_per_tubelet(shape, ratio)


def check_cells(store: TargetStore | StoreUnion, cells: Sequence[str]) -> None:
    for name in cells:
        if name not in store.spec.cells:
            raise UsageError(
                f"cells={name}: {store.url} does not hold this descriptor; make a store with "
                f"spec.cells={','.join((*store.spec.cells, name))}"
            )


def check_frames(store: TargetStore | StoreUnion, source: str, root: str) -> None:
    """Checks that the store, or the folder of the videos, holds frames to read."""
    if source not in SOURCES:
        raise UsageError(f"source={source} is not one of {', '.join(SOURCES)}")
    if source == "store" and store.spec.frames == "none":
        raise UsageError(
            f"{store.url} holds no frames (spec.frames=none): use source=video with "
            "root=… (the folder of its videos), or make it with spec.frames=jpeg or lz4"
        )
    if source == "video" and isinstance(store, StoreUnion):
        raise UsageError("source=video reads the videos of one store: use source=store for several")
    if source == "video":
        path = join(root, store.videos[0]["path"])
        file = path.partition(INSIDE)[0] if is_inside(path) else path
        folder, _, name = file.rpartition("/")
        if not open_place(folder or ".").exists(name):
            raise UsageError(
                f"{file}: no such file; set root=… to the folder of the videos of {store.url}"
            )


def check_canvases(
    store: TargetStore | StoreUnion, smallest: int, image_size: int, zoom: Sequence[int]
) -> None:
    """Checks that every canvas has room for the smallest crop, `smallest` patches on a side.

    At least one canvas must have room for the largest crop. On a smaller canvas the crop is limited
    to the canvas.
    """
    table, spec = store.videos, store.spec
    short = np.minimum(table["hp"], table["wp"])
    video = int(short.argmin())
    if short[video] >= smallest:
        if zoom and zoom[1] > short.max():
            raise UsageError(
                f"zoom={list(zoom)}: no canvas in {store.url} has room for {zoom[1]} patches "
                f"(spec.short_side={spec.short_side}): use at most {short.max()}"
            )
        return
    row = table[video]
    asked = f"zoom={list(zoom)}" if zoom else f"image_size={image_size}"
    raise UsageError(
        f"{asked} needs {smallest}×{smallest} patches, and the canvas of {row['id']} has "
        f"{row['hp']}×{row['wp']} (spec.short_side={spec.short_side}, "
        f"spec.long_side={spec.long_side} in {store.url}): use at most "
        f"{'side ' if zoom else 'image_size='}"
        f"{short[video] if zoom else short[video] * spec.patch}, or a store of larger canvases"
    )
