"""Small stores live in the memory of the device: `data.resident`."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property

import torch

from mme_core.clips.coded import Arrays, CodedForm
from mme_core.clips.dataset import ClipDataset
from mme_core.clips.resident import Resident, resident_bytes
from mme_core.control_groups import memory_limits
from mme_core.cores import usable_cores
from mme_core.errors import StoreError, UsageError
from mme_core.report.words import size as in_words

# Of the memory of a GPU, or of the machine, that a store may take. The processes of a machine
# share its own memory.
SHARES = {"cuda": 0.3, "cpu": 0.125}


class DrawnClips:
    """What is drawn for the clips of `clips`, as drawn batches; nothing is read.

    unreadable  {video: reason} of videos that have no clips
    """

    def __init__(self, clips: ClipDataset, unreadable: dict[int, str]) -> None:
        self.clips, self.unreadable = clips, unreadable
        self.seed, self.crops = clips.seed, clips.crops

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def form(self) -> CodedForm:
        return replace(self.clips.form, drawn=True)

    def fetch_into(self, arrays: Arrays, first: int, key: tuple[int, int]) -> None:
        """As `ClipDataset.draw_into`. Raises StoreError for an unreadable video."""
        if key[1] in self.unreadable:
            raise StoreError(self.unreadable[key[1]])
        self.clips.draw_into(arrays, first, key)


def make_resident(
    setting: bool | str, clips: ClipDataset, device: torch.device
) -> tuple[Resident | None, str]:
    """The store's content on the device, or None where it stays on disk; and a line that says why.

    setting  True, False, or "auto": where it takes no more than its share of the device's memory

    Raises UsageError for True where the frames are not in the store, or the memory is too small.
    """
    if setting is False:
        return None, "data.resident=false: clips are read from the store"
    if clips.source != "store":
        if setting is True:
            raise UsageError(
                "data.resident=true needs data.frames=store: video files are decoded anew for "
                "each clip"
            )
        return None, "data.resident=auto: clips are read from the store and the video files"
    size, total = resident_bytes(clips), _memory(device)
    limit = SHARES[device.type] * total
    about = f"{in_words(size)} of targets and decoded frames"
    if size > (limit if setting == "auto" else total):
        if setting is True:
            raise UsageError(
                f"data.resident=true: {clips.store.url} has {about}, and {device.type} has "
                f"{total / 1e9:.2f} GB: set data.resident=auto"
            )
        return None, (
            f"data.resident=auto: clips are read from the store: {about} are more than "
            f"{limit / 1e9:.2f} GB, {SHARES[device.type]:.1%} of the memory of {device.type}"
        )
    resident = Resident(clips, device, usable_cores())
    return resident, f"data.resident={str(setting).lower()}: {about} are kept on {device.type}"


def _memory(device: torch.device) -> int:
    """Bytes of the device's memory for this process."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = min([total, *(limit for limit, _ in memory_limits())])
    return total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
