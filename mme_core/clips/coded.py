"""Coded batches: what a loader worker hands over, before `mme_core.clips.assembly`.

A coded batch is a dict of tensors. Without zoom it has the tensors of a batch of samples
(`mme_core.clips.dataset`). With zoom, where C is the side of the largest crop in patches:

    frames      uint8 [B, 2n, 16 C, 16 C, 3], the crop in the upper left corner, flipped already
    position    int8 [B, n, C + 2, C + 2, K, L, 2]
    shape       int8 [B, n, C + 2, C + 2, K, L, bins]
    moments     float32 [B, n, C + 2, C + 2, 6]
    valid       uint8 [B, n, C + 2, C + 2]
    cell_NAME   int8 [B, n, C + 2, C + 2, K, L, D] and cell_NAME_moments float32 [..., 2]
    view        int64 [B, 5], patches: top, left and side of the crop, canvas height and width
    homography  float32 [B, n, L, 3, 3] in pixels of the canvas, where the store has them

The targets of a crop begin at patch (1, 1). Around them lies one patch of the canvas, as far as the
canvas reaches. Numbers elsewhere have no meaning, but are finite.

Where the mask needs the motion, `order` int64 [B, h·w] and `picks` int64 [B, visible] (of
`mme_core.masking.motion_draws`) take the place of `mask`. The rest is as in a sample.

A *drawn* batch holds what was drawn alone: `view` (with or without zoom), `flip`, `video`, `start`,
`label`, and `mask` or `order` and `picks`. `mme_core.clips.resident` makes a coded batch of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mme_core import cells
from mme_core.masking import hidden_per_tubelet
from mme_core.spec import TUBELET, TargetSpec
from mme_core.targets import MOMENTS

Coded = dict[str, Tensor]
Fields = dict[str, tuple[tuple[int, ...], torch.dtype]]
Arrays = Mapping[str, np.ndarray]  # the same memory as NumPy arrays

_ALIGN = 64  # bytes; tensors begin at multiples


@dataclass(frozen=True)
class CodedForm:
    """Names, shapes and dtypes of the tensors of a coded batch.

    tubelets    n
    side        the model's h = w, patches
    largest     side of the largest crop, patches; None without zoom
    motion      whether the mask needs the motion
    mask_ratio  share of hidden patches
    cells       descriptors of cells that the batch holds
    speeds      whether the frame stride is drawn
    drawn       whether it is the form of a drawn batch
    """

    spec: TargetSpec
    tubelets: int
    side: int
    largest: int | None
    motion: bool
    mask_ratio: float
    cells: tuple[str, ...] = ()
    speeds: bool = False
    drawn: bool = False

    def fields(self) -> Fields:
        """Returns {name: (shape of one clip, dtype)}."""
        if self.drawn:
            more: Fields = {"speed": ((), torch.int64)} if self.speeds else {}
            return self._draws() | {"view": ((5,), torch.int64)} | more
        return self._content() | self._draws()

    def _draws(self) -> Fields:
        side = self.side
        fields: Fields = {
            "flip": ((), torch.bool),
            "video": ((), torch.int64),
            "start": ((), torch.int64),
            "label": ((), torch.int64),
        }
        if self.motion:
            shape = (self.tubelets, side, side)
            visible = side * side - hidden_per_tubelet(shape, self.mask_ratio)
            return fields | {
                "order": ((side * side,), torch.int64),
                "picks": ((visible,), torch.int64),
            }
        return fields | {"mask": ((self.tubelets * side * side,), torch.bool)}

    def _content(self) -> Fields:
        spec, n, side = self.spec, self.tubelets, self.side
        pixels = (self.largest or side) * spec.patch
        patches = self.largest + 2 if self.largest else side
        grid, track = (n, patches, patches), (spec.points, spec.length)
        fields: Fields = {
            "frames": ((TUBELET * n, pixels, pixels, 3), torch.uint8),
            "position": ((*grid, *track, 2), torch.int8),
            "shape": ((*grid, *track, spec.hog_bins), torch.int8),
            "moments": ((*grid, MOMENTS), torch.float32),
            "valid": (grid, torch.uint8),
        }
        for name in self.cells:
            numbers = (*grid, *track, cells.bins(name, spec))
            fields[cells.codes_name(name)] = (numbers, torch.int8)
            fields[cells.moments_name(name)] = ((*grid, cells.MOMENTS), torch.float32)
        if spec.camera != "none":
            fields["homography"] = ((n, spec.length, 3, 3), torch.float32)
        if self.largest:
            fields["view"] = ((5,), torch.int64)
        elif spec.camera != "none":
            fields["origin"] = ((2,), torch.float32)
        return fields

    def size(self, clips: int) -> int:
        """Returns the number of bytes of a batch."""
        return sum(_padded(clips, *field) for field in self.fields().values())

    def carve(self, memory: Tensor, clips: int) -> Coded:
        """Returns the tensors of a batch as views of `memory`, uint8 [≥ size(clips)]."""
        batch, begin = {}, 0
        for name, (shape, dtype) in self.fields().items():
            whole = (clips, *shape)
            part = memory[begin : begin + math.prod(whole) * dtype.itemsize]
            batch[name] = part.view(dtype).reshape(whole)
            begin += _padded(clips, shape, dtype)
        return batch


def _padded(clips: int, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    size = clips * math.prod(shape) * dtype.itemsize
    return -(-size // _ALIGN) * _ALIGN
