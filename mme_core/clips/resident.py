"""A small store's targets and decoded frames in the memory of a device, and clips of them.

`Resident.sample` makes there, for the same draws, the coded batch that `ClipDataset.fetch` reads
from the store. Patches are the unit in which crops are taken, so the numbers of a patch are kept as
a few long words: one index moves up to eight bytes.

Names of axes: B clips, n tubelets, N tubelets of all videos, h and w patches, p pixels of a patch.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mme_core.clips import fetching
from mme_core.clips.coded import Coded, Fields
from mme_core.clips.dataset import ClipDataset
from mme_core.clips.speeds import second_frame
from mme_core.clips.trajectories import Batch, none_flipped, where_clip
from mme_core.errors import StoreError
from mme_core.spec import TUBELET
from mme_core.store.pieces import StoredWindow


class Resident:
    """The content of `clips`, whose frames come from its store, on a device.

    unreadable  {video: reason} of videos of which a part is damaged; their clips are undefined
    """

    def __init__(self, clips: ClipDataset, device: torch.device, threads: int = 1) -> None:
        """Reads and decodes the whole store, with this number of threads."""
        self._clips, self._form, self._spec = clips, clips.form, clips.spec
        self.unreadable: dict[int, str] = {}
        table = clips.store.videos
        ends = np.cumsum(table["count"])
        self._begin = ends - table["count"]
        self._first = torch.from_numpy(self._begin).to(device)
        self._count = torch.from_numpy(np.array(table["count"])).to(device)
        self._some_short = clips.short_videos > 0
        speeds = range(max(clips.speeds or (1,)) + 1)
        second = [second_frame(clips.spec, max(speed, 1)) for speed in speeds]
        self._second = torch.tensor(second, device=device)
        self._kept = {
            name: torch.zeros(shape, dtype=dtype, device=device)
            for name, (shape, dtype) in _kept_fields(clips).items()
        }
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._read, range(len(table))))

    def sample(self, drawn: Batch) -> Coded:
        """The coded batch of a drawn batch (`mme_core.clips.coded`) that is on the device."""
        form, spec = self._form, self._spec
        top, left, size, *_ = drawn["view"].unbind(1)
        first, count = self._first[drawn["video"]], self._count[drawn["video"]]
        batch = dict(drawn)
        speed = batch.pop("speed", torch.ones_like(top))
        steps = torch.arange(form.tubelets, device=top.device) * spec.clip_step
        time = drawn["start"][:, None] + steps * speed[:, None]
        real = time < count[:, None]  # the rest pads a short video
        rows = first[:, None] + time.minimum(count[:, None] - 1)
        batch |= self._targets(rows, real, top, left)
        later, member = self._second[speed].unbind(1)
        second = TUBELET * (time + later[:, None]) + member[:, None]
        second = second.minimum(TUBELET * count[:, None] - 1) + TUBELET * first[:, None]
        last = second.gather(1, real.sum(1, keepdim=True) - 1)  # it pads a short video
        frames = torch.stack([TUBELET * rows, second], -1)
        frames = torch.where(real[..., None], frames, last[..., None])
        batch["frames"] = self._frames(frames.flatten(1), top, left, size, drawn["flip"])
        if "homography" in self._kept:
            still = torch.eye(3, device=top.device)
            moved = self._kept["homography"][rows]
            batch["homography"] = torch.where(real[..., None, None, None], moved, still)
        if form.largest is None:
            del batch["view"]
            if "homography" in batch:
                batch["origin"] = torch.stack([left, top], -1).float() * spec.patch
        return batch

    def _targets(self, rows: Tensor, real: Tensor, top: Tensor, left: Tensor) -> Coded:
        largest, side = self._form.largest, self._form.side
        offsets = torch.arange(largest + 2 if largest else side, device=top.device)
        if largest:
            offsets = offsets - 1
        taken = {}
        for name, (shape, dtype) in self._form.fields().items():
            if name not in fetching.target_names(self._form.cells):
                continue
            kept = self._kept[name]
            # Beyond the canvas any patch will do: its numbers have no meaning.
            y = (top[:, None] + offsets).clamp(0, kept.shape[1] - 1)
            x = (left[:, None] + offsets).clamp(0, kept.shape[2] - 1)
            words = kept[rows[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]
            if self._some_short:
                words = torch.where(real[:, :, None, None, None], words, 0)
            taken[name] = words.view(dtype).reshape(-1, *shape)
        return taken

    def _frames(
        self, frame: Tensor, top: Tensor, left: Tensor, size: Tensor, flip: Tensor
    ) -> Tensor:
        kept, patch = self._kept["frames"], self._spec.patch
        side = self._form.largest or self._form.side
        y = top[:, None] * patch + torch.arange(side * patch, device=top.device)
        column = torch.arange(side, device=top.device)
        mirrored = flip[:, None]
        column = torch.where(mirrored, size[:, None] - 1 - column, column)
        y = y.clamp(max=kept.shape[1] - 1)
        x = (left[:, None] + column).clamp(0, kept.shape[2] - 1)
        words = kept[frame[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]
        pixels = words.view(torch.uint8).unflatten(-1, (patch, 3))  # [B, 2n, H, w, p, 3]
        if not none_flipped(flip):
            pixels = where_clip(flip, pixels.flip(-2), pixels)
        return pixels.flatten(3, 4)

    def _read(self, video: int) -> None:
        try:
            window = self._clips.store.open_video(video)
            self._read_targets(window, int(self._begin[video]))
            self._read_frames(window, int(self._begin[video]))
        except StoreError as error:
            self.unreadable[video] = str(error)

    def _read_targets(self, window: StoredWindow, begin: int) -> None:
        row = window.row
        for name in fetching.target_names(self._form.cells):
            kept = self._kept[name]
            for at, part in window.parts(name):
                part = part[:, : row["hp"], : row["wp"]]
                words = _words(part.reshape(*part.shape[:3], -1))
                place = slice(begin + at, begin + at + len(part))
                kept[place, : row["hp"], : row["wp"]] = words.to(kept.device)
        if "homography" in self._kept:
            kept = self._kept["homography"]
            for at, part in window.parts("homography"):
                matrices = torch.from_numpy(part.copy())
                kept[begin + at : begin + at + len(part)] = matrices.to(kept.device)

    def _read_frames(self, window: StoredWindow, begin: int) -> None:
        row, patch, kept = window.row, self._spec.patch, self._kept["frames"]
        height, width = row["hp"] * patch, row["wp"] * patch
        frames = window.frames()
        images = np.empty((len(frames), height, width, 3), np.uint8)
        for coded, image in zip(frames, images):
            fetching.decode_stored(coded, image, window)
        begin = begin * TUBELET
        words = _words(images.reshape(len(images), height, row["wp"], -1))
        kept[begin : begin + len(images), :height, : row["wp"]] = words.to(kept.device)


def resident_bytes(clips: ClipDataset) -> int:
    """Memory that `Resident` takes for `clips`."""
    fields = _kept_fields(clips).values()
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields)


def _kept_fields(clips: ClipDataset) -> Fields:
    """{name: (shape, dtype)} of the tensors kept: [N, h, w, words], frames [2N, H, w, words]."""
    table, patch = clips.store.videos, clips.spec.patch
    tubelets = int(table["count"].sum())
    rows, columns = int(table["hp"].max()), int(table["wp"].max())
    form = clips.form.fields()
    fields: Fields = {}
    for name in fetching.target_names(clips.cells):
        shape, dtype = form[name]
        length, word = _word(math.prod(shape[3:]) * dtype.itemsize)
        fields[name] = ((tubelets, rows, columns, length), word)
    length, word = _word(patch * 3)
    fields["frames"] = ((tubelets * TUBELET, rows * patch, columns, length), word)
    if "homography" in form:
        shape, dtype = form["homography"]
        fields["homography"] = ((tubelets, *shape[1:]), dtype)
    return fields


def _word(size: int) -> tuple[int, torch.dtype]:
    """(number, dtype) of the longest words that `size` bytes can be divided into."""
    for word in (torch.int64, torch.int32, torch.int16):
        if size % word.itemsize == 0:
            return size // word.itemsize, word
    return size, torch.uint8


def _words(values: np.ndarray) -> Tensor:
    """[..., numbers of a patch] as words [..., length]."""
    data = np.ascontiguousarray(values).view(np.uint8)
    return torch.from_numpy(data).view(_word(data.shape[-1])[1])
