"""Batches of pre-training clips that are drawn on the GPU, from arrays that lie there.

Augmentation: the start, a frame stride for each clip, the crop's place, the flip, and for each
batch the side of the crop (zoom). Clips of a batch are drawn together, so the draws are not those
of `ClipDataset`; the order of videos is. It takes the place of a run's loader; see `mme.py` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.resident.cache import FOLDER, TARGETS, first_rows
from mme_core.clips.assembly import zoom_frames
from mme_core.clips.dataset import ClipDataset
from mme_core.masking import hidden_per_tubelet
from mme_core.spec import TUBELET
from mme_core.store.union import parts
from mme_core.targets import decode_displacement, decode_hog

Batch = dict[str, Tensor]


class ResidentClips:
    """Endless batches in the order of `sampler`, on `device`.

    speeds  frame strides to draw from, as multiples of the store's; a short video takes the largest
            that it has room for
    zoom    sides of the crop to draw from, patches; each batch has one
    """

    def __init__(
        self,
        clips: ClipDataset,
        sampler: Iterator[list[tuple[int, int]]],
        device: torch.device,
        speeds: Sequence[int],
        zoom: Sequence[int],
    ) -> None:
        self.clips, self.sampler, self.device = clips, sampler, device
        self.speeds, self.zoom = np.array(speeds), list(zoom)
        stores = parts(clips.store)
        folders = [Path(store.url) / FOLDER for store in stores]
        grids = [np.load(folder / "valid.npy", mmap_mode="r").shape[1:] for folder in folders]
        self.grid = tuple(np.max(grids, axis=0).tolist())
        self.arrays = {name: self._load(folders, name) for name in (*TARGETS, "frames")}
        firsts, base = [], 0
        for store in stores:
            rows = first_rows(store)
            firsts.append(base + rows[:-1])
            base += rows[-1]
        self.first, self.count = np.concatenate(firsts), np.asarray(clips.store.videos["count"])
        self.hp, self.wp = (np.asarray(clips.store.videos[name]) for name in ("hp", "wp"))

    def _load(self, folders: list[Path], name: str) -> Tensor:
        """The arrays of all stores, one after the other, padded to one grid of patches."""
        scale = self.clips.spec.patch if name == "frames" else 1
        height, width = (side * scale for side in self.grid)
        loaded = [np.load(folder / f"{name}.npy", mmap_mode="r") for folder in folders]
        kind = torch.from_numpy(loaded[0][:1].copy()).dtype
        whole = (sum(map(len, loaded)), height, width, *loaded[0].shape[3:])
        array, begin = torch.zeros(whole, dtype=kind, device=self.device), 0
        for part in loaded:
            for low in range(0, len(part), 4096):  # a copy at a time
                piece = torch.from_numpy(part[low : low + 4096].copy())
                end = begin + len(piece)
                array[begin:end, : piece.shape[1], : piece.shape[2]] = piece.to(self.device)
                begin = end
        return array

    def ready(self) -> None:
        """No batch waits: each is made when it is asked for."""

    def __iter__(self) -> Iterator[Batch]:
        for keys in self.sampler:
            yield self._batch(keys)

    def _batch(self, keys: list[tuple[int, int]]) -> Batch:
        clips, videos = self.clips, np.array([video for _, video in keys])
        rng = np.random.default_rng([7, clips.seed, *keys[0], len(keys)])
        n, size = clips.tubelets, int(rng.choice(self.zoom))
        count, frames = self.count[videos], TUBELET * clips.tubelets
        room = np.maximum(count // (frames - 1), 1)
        speed = np.minimum(rng.choice(self.speeds, len(videos)), room)
        start = (
            rng.random(len(videos)) * (np.maximum(count - speed * (frames - 1), 0) + 1)
        ).astype(int)
        top = (rng.random(len(videos)) * (self.hp[videos] - size + 1)).astype(int)
        left = (rng.random(len(videos)) * (self.wp[videos] - size + 1)).astype(int)
        flip = rng.random(len(videos)) < (0.5 if clips.flip else 0)

        # Frame f of a clip is the first frame of tubelet start + speed · f; the last stays in short
        # videos. Tubelets beyond the end are invalid.
        at = start[:, None] + speed[:, None] * np.arange(frames)
        frame = self.first[videos, None] + videos[:, None] + np.minimum(at, count[:, None])
        tubelet = at[:, ::TUBELET]
        beyond = tubelet >= count[:, None]
        row = self.first[videos, None] + np.minimum(tubelet, count[:, None] - 1)
        send = {
            "frame": frame, "row": row, "beyond": beyond, "top": top, "left": left, "flip": flip,
            "video": videos,
        }  # fmt: skip
        sent = {name: torch.from_numpy(value).to(self.device) for name, value in send.items()}
        batch = self._gather(sent, size, n)
        return batch | {"failed": {}, "mask": self._masks(len(videos), n, rng)}

    def _gather(self, sent: Batch, size: int, n: int) -> Batch:
        patch, side = self.clips.spec.patch, self.clips.side
        pixel = torch.arange(size * patch, device=self.device)
        columns = torch.where(sent["flip"][:, None], pixel.flip(0), pixel)
        columns = sent["left"][:, None] * patch + columns
        rows = sent["top"][:, None] * patch + pixel
        images = self.arrays["frames"][
            sent["frame"][:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]
        cell = torch.arange(size, device=self.device)
        rows, columns = sent["top"][:, None] + cell, sent["left"][:, None] + cell
        place = (sent["row"][:, :, None, None], rows[:, None, :, None], columns[:, None, None, :])
        found = {name: self.arrays[name][place] for name in TARGETS}
        found["valid"] = found["valid"] * ~sent["beyond"][:, :, None, None]
        batch = {"frames": images, "flip": sent["flip"], "video": sent["video"]}
        if size == side:
            return batch | found
        sizes = torch.full((len(images),), size, device=self.device)
        batch["frames"] = zoom_frames(images, sizes, side * patch, patch)
        return batch | self._zoomed(found, size, side)

    def _zoomed(self, found: Batch, size: int, side: int) -> Batch:
        """Targets of crops of size × size patches as side × side, as `ClipDataset` zooms."""
        spec = self.clips.spec

        def zoom(values: Tensor) -> Tensor:
            """[B, n, size, size, K, C] → [B, n, side, side, K, C]: the grid of points, bilinear.

            A smaller picture reads no point beyond the crop.
            """
            g = spec.grid
            field = values.unflatten(4, (g, g)).permute(0, 1, 6, 2, 4, 3, 5)
            field = field.flatten(5).flatten(3, 4).flatten(0, 1)  # [B · n, C, size · g, size · g]
            field = F.interpolate(field, (side * g, side * g), mode="bilinear")
            field = field.unflatten(3, (side, g)).unflatten(2, (side, g))
            field = field.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
            return field.unflatten(0, values.shape[:2])

        displacement = decode_displacement(found["position"], found["moments"], spec)
        hog = decode_hog(found["shape"], found["moments"], spec)
        bit = torch.arange(spec.points, device=self.device)
        bad = ((found["valid"][..., None] >> bit) & 1 == 0).float()[..., None]
        good = zoom(bad)[..., 0] == 0
        return {
            "displacement": zoom(displacement.flatten(5)).unflatten(5, (spec.length, 2))
            * (side / size),
            "hog": zoom(hog.flatten(5)).unflatten(5, (spec.length, spec.hog_bins)),
            "valid": (good.to(torch.uint8) << bit.to(torch.uint8)).sum(-1, dtype=torch.uint8),
        }

    def _masks(self, clips: int, n: int, rng: np.random.Generator) -> Tensor:
        """Tube masks, bool [clips, N]."""
        patches = self.clips.side**2
        hidden = hidden_per_tubelet((n, self.clips.side, self.clips.side), self.clips.mask_ratio)
        order = torch.from_numpy(rng.random((clips, patches)).argsort(1)).to(self.device)
        return (order < hidden).repeat(1, n)
