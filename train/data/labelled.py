"""Labelled clips for fine-tuning and for testing, and the step from frames to a model's input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mme_core.clips import views
from mme_core.clips.draws import sample_rng
from mme_core.errors import MMEError
from train.data.augment import augment_clip, crop_clip
from train.data.sources import Source
from train.data.standins import candidates
from train.recipes.classification import AugmentConfig

UNREADABLE = (MMEError, OSError)  # what a video that cannot be used raises


class TrainClips(Dataset):
    """Augmented clips; an item is asked for as (epoch, video) and drawn from (seed, epoch, video).

    An item is {"frames": uint8 [crops, T, S, S, 3], "label", "video": int64 [crops], "failed"}:
    of the video, or of the first of `candidates` that can be read. "failed" is {video: reason} of
    those before it. An item has "failed" alone where that is more than `budget` videos.

    on_device  leave flip and RandAugment to the device: the frames are only cropped, and "drawn"
               lists what is to be done to each crop, as `train.data.augment.Drawn`
    """

    def __init__(
        self,
        source: Source,
        *,
        frames: int,
        size: int,
        sampling: str,
        stride: int,
        crops: int,
        still: bool,
        augment: AugmentConfig,
        seed: int,
        budget: int,
        on_device: bool = False,
    ) -> None:
        self.source, self.clip, self.size = source, frames, size
        self.sampling, self.stride, self.crops = sampling, stride, crops
        self.still, self.augment, self.seed = still, augment, seed
        self.budget, self.on_device = budget, on_device

    def __len__(self) -> int:
        return len(self.source.ids)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        failed: dict[int, str] = {}
        for video in candidates(self.seed, *key, len(self)):
            rng = sample_rng(self.seed, key[0], video)
            try:
                clip = self.source.read(video, partial(self._choose, rng))
            except UNREADABLE as error:
                failed[video] = str(error)
                if len(failed) > self.budget:
                    break
                continue
            label = torch.full((self.crops,), int(self.source.labels[video]))
            number = torch.full((self.crops,), video)
            return {**self._crops(clip, rng), "label": label, "video": number, "failed": failed}
        return {"failed": failed}

    def _crops(self, clip_THW3: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        options = self.augment
        pairs = [
            crop_clip(
                clip_THW3,
                self.size,
                rng,
                scale=(options.scale[0], options.scale[1]),
                flip=options.flip,
                rand_augment=options.rand_augment,
            )
            for _ in range(self.crops)
        ]
        if self.on_device:
            crops, drawn = zip(*pairs)
            return {"frames": torch.from_numpy(np.stack(crops)), "drawn": list(drawn)}
        return {"frames": torch.from_numpy(np.stack([augment_clip(*pair) for pair in pairs]))}

    def _choose(self, rng: np.random.Generator, frames: int) -> np.ndarray:
        chosen = views.train_indices(self.sampling, frames, self.clip, self.stride, rng)
        return views.still(chosen) if self.still else chosen


def collate_train(items: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch, the crops of a video side by side; "failed" of all items together.

    Another item of the batch is repeated in the place of an item without frames, so that shapes
    stay as they are. If no item has frames, the batch has "failed" alone.
    """
    failed = {video: text for item in items for video, text in item["failed"].items()}
    good = [item for item in items if "frames" in item]
    if not good:
        return {"failed": failed}
    good += [good[i % len(good)] for i in range(len(items) - len(good))]
    drawn = [one for item in good for one in item.get("drawn", ())]
    return {
        "frames": torch.cat([item["frames"] for item in good]),
        "label": torch.cat([item["label"] for item in good]),
        "video": torch.cat([item["video"] for item in good]),
        "failed": failed,
        **({"drawn": drawn} if drawn else {}),
    }


@dataclass(frozen=True)
class ViewPlan:
    """How a test video is seen: clips × crops views of `frames` frames, `size` pixels square.

    stride counts the source's frames. still: each clip's middle frame, repeated.
    """

    sampling: str
    stride: int
    frames: int
    size: int
    clips: int
    crops: int
    still: bool = False

    def indices(self, frames: int) -> np.ndarray:
        """int64 [clips, self.frames] of a video of `frames` frames."""
        chosen = views.test_indices(self.sampling, frames, self.frames, self.stride, self.clips)
        return views.still(chosen) if self.still else chosen


class TestViews(Dataset):
    """All views of each video: {"video", "views": uint8 [V, T, S, S, 3]}, or {"video", "failed"}.

    The order of views is clip-major.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, source: Source, plan: ViewPlan) -> None:
        self.source, self.plan = source, plan

    def __len__(self) -> int:
        return len(self.source.ids)

    def __getitem__(self, video: int) -> dict[str, Any]:
        plan = self.plan
        try:
            clips = self.source.read(video, plan.indices)
        except UNREADABLE as error:
            return {"video": video, "failed": str(error)}
        seen = views.test_views(list(clips), plan.size, plan.crops)
        return {"video": video, "views": torch.from_numpy(seen)}


def collate_views(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The views uint8 [·, T, S, S, 3] of the "videos" that were read, and the "failures": (video,
    reason) of the others. Without a video that was read there are no "views"."""
    read = [item for item in items if "failed" not in item]
    batch: dict[str, Any] = {
        "videos": [item["video"] for item in read],
        "failures": [(item["video"], item["failed"]) for item in items if "failed" in item],
    }
    return batch | ({"views": torch.cat([item["views"] for item in read])} if read else {})
