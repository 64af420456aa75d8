"""Samples of pre-training: one augmented clip of one video, with its stored targets and its mask.

A sample is a dict of tensors; n tubelets (n = frames / 2), h × w patches, K points, L steps:

    frames      uint8 [2n, H, W, 3], RGB, flipped already where `flip` is set
    position    int8 [n, h, w, K, L, 2]         as stored, cropped, not flipped: that happens on
    shape       int8 [n, h, w, K, L, bins]      the device (mme_core.clips.contents)
    moments     float32 [n, h, w, 6]
    valid       uint8 [n, h, w], bit k: trajectory k
    flip        bool []
    mask        bool [n·h·w] by time, row and column of the clip as the model sees it; True: hidden
    homography  float32 [n, L, 3, 3] and origin float32 [2], the crop's corner (x, y) in pixels,
                where the store has camera motion
    cell_NAME   int8 [n, h, w, K, L, D], and cell_NAME_moments float32 [n, h, w, 2], for `cells`
    video, start, label    int64 []: row of the store's table, first tubelet, class (−1: none)

With zoom, `displacement` float32 [n, h, w, K, L, 2] and `hog` float32 [n, h, w, K, L, bins], in
pixels of the zoomed crop, take the place of position, shape and moments, and cell_NAME is float32
without moments. With several crops every tensor has a leading axis for them. docs/data.md tells how
a sample is made.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from mme_core.canvas import plan_canvas
from mme_core.clips import fetching, geometry, requirements
from mme_core.clips.assembly import assemble
from mme_core.clips.coded import Arrays, Coded, CodedForm
from mme_core.clips.draws import Draw, sample_rng
from mme_core.clips.geometry import View
from mme_core.clips.speeds import frame_numbers, span
from mme_core.errors import VideoError
from mme_core.io.remote import join
from mme_core.io.timeline import UNORDERED
from mme_core.io.video import read_frames
from mme_core.masking import make_mask, motion_draws
from mme_core.scratch import Scratch
from mme_core.spec import TUBELET
from mme_core.store import StoreUnion, TargetStore
from mme_core.store.pieces import StoredWindow
from mme_core.store.union import open_stores

_CODED = Scratch()

Sample = dict[str, Tensor]
Key = int | tuple[int, int]  # a video, or (epoch, video)


class ClipDataset(Dataset):
    """Item i is a clip of the store's video i; item (epoch, i) is the one that epoch draws.

    What is drawn is a function of (seed, epoch, i) alone, so it does not depend on the number of
    workers, their order, or a resume.

    store       TargetStore, or its path or URL; or StoreUnion, whose frames come from the stores
    frames      T, an even number
    image_size  side of the crop that the model sees, pixels
    source      "store": its frames; "video": decoded from the video files, the same frames
    root        folder or URL of the video files, for source="video"
    crops       crops of one window, each with its own flip and mask (repeated augmentation)
    crop        "random" or "center"
    zoom        smallest and largest side of the crop in patches; () is no zoom
    flip        mirror half of the samples
    speeds      frame strides to draw from, as multiples of the store's; a video takes those that
                it is long enough for, or else the smallest. () is the store's own, which
                `mme_core.clips.contents.OF_STORED_STRIDE` needs
    mask        kind of mask (mme_core.masking.MASKS); mask_ratio: share of patches hidden
    cells       descriptors of the store's spec.cells to read as well (`mme_core.cells`)
    training    False, for held-out clips: the middle window and crop, no flip, no zoom, and in
                every epoch the same mask

    Raises UsageError or StoreError, naming the field, for arguments the store cannot serve.
    """

    def __init__(
        self,
        store: TargetStore | StoreUnion | str | os.PathLike[str],
        *,
        frames: int = 16,
        image_size: int = 224,
        source: str = "store",
        root: str | os.PathLike[str] | None = None,
        crops: int = 1,
        crop: str = "random",
        zoom: Sequence[int] = (),
        flip: bool = True,
        speeds: Sequence[int] = (),
        mask: str = "tube",
        mask_ratio: float = 0.7,
        cells: Sequence[str] = (),
        seed: int = 0,
        training: bool = True,
    ) -> None:
        self.store = open_stores(store)
        self.spec = self.store.spec
        self.source, self.root = source, os.fspath(root or "")
        self.crops, self.crop, self.flip = crops, crop, flip
        self.zoom = tuple(zoom) if training else ()
        self.speeds = tuple(speeds) if training else ()
        self.mask, self.mask_ratio = mask, mask_ratio
        self.cells = tuple(cells)
        self.seed, self.training = seed, training
        self.tubelets, self.side = frames // TUBELET, image_size // self.spec.patch
        requirements.check_sizes(frames, image_size, self.spec.patch)
        requirements.check_seed(seed)
        requirements.check_choices(crops, crop, zoom)
        requirements.check_speeds(speeds, source)
        requirements.check_mask(mask, mask_ratio, (self.tubelets, self.side, self.side))
        requirements.check_cells(self.store, self.cells)
        requirements.check_frames(self.store, source, self.root)
        requirements.check_canvases(self.store, self.sizes[0], image_size, self.zoom)

    def __len__(self) -> int:
        return len(self.store.videos)

    @property
    def short_videos(self) -> int:
        """Number of videos that are shorter than a clip: their last frame is repeated."""
        needed = span(self.spec, self.tubelets, min(self.speeds or (1,)))
        return int((self.store.videos["count"] < needed).sum())

    @property
    def sizes(self) -> tuple[int, int]:
        """Smallest and largest side of a crop, patches."""
        return (self.zoom[0], self.zoom[1]) if self.zoom else (self.side, self.side)

    @property
    def shards(self) -> np.ndarray:
        """The shard of every video, int64 [videos], for `ClipSampler(shards=…)`."""
        return self.store.videos["shard"]

    @functools.cached_property
    def form(self) -> CodedForm:
        """The tensors of the coded batches that `fetch` returns."""
        largest = min(self.sizes[1], self._room) if self.zoom else None
        motion = self.mask == "motion"
        return CodedForm(
            self.spec,
            self.tubelets,
            self.side,
            largest,
            motion,
            self.mask_ratio,
            self.cells,
            bool(self.speeds),
        )

    @functools.cached_property
    def _room(self) -> int:
        """Side of the largest crop that any canvas has room for, patches."""
        table = self.store.videos
        return int(np.minimum(table["hp"], table["wp"]).max())

    def __getitem__(self, key: Key) -> Sample:
        draw = self.draw(key)
        clips = self._zoomed(draw) if self.zoom else assemble(self._fetch(draw), self.spec)
        return clips if self.crops > 1 else {name: value[0] for name, value in clips.items()}

    def draw(self, key: Key) -> Draw:
        """What is drawn for a clip, without reading it; a function of (seed, epoch, video)."""
        epoch, video = key if isinstance(key, tuple) else (0, key)
        if not 0 <= video < len(self):
            raise IndexError(f"video {video} of {len(self)}")
        if epoch < 0:
            raise IndexError(f"epoch {epoch} must be at least 0")
        rng = sample_rng(self.seed, epoch if self.training else 0, video)
        row = self.store.videos[video]
        speed = self._speed(rng, row["count"]) if self.speeds else 1
        starts = max(row["count"] - span(self.spec, self.tubelets, speed) + 1, 1)
        start = int(rng.integers(starts)) if self.training else (starts - 1) // 2
        views, masks = [], []
        for _ in range(self.crops):
            views.append(self._view(rng, row["hp"], row["wp"]))
            masks.append(self._mask(rng))
        return Draw(video, start, tuple(views), tuple(masks), speed)

    def fetch(self, key: Key) -> Coded:
        """The coded batch of a video's clips (`mme_core.clips.coded`), one clip for each crop.

        A loader worker hands this over; `mme_core.clips.assembly.assemble` makes samples of it on
        any device. Raises IndexError, and StoreError or VideoError for what cannot be read.
        """
        return self._fetch(self.draw(key))

    def fetch_into(self, arrays: Arrays, first: int, key: Key) -> None:
        """As `fetch`, but writes to the clips first, first + 1, … of a coded batch.

        The arrays' memory must have held zeros or a coded batch before. After an error these clips
        are undefined.
        """
        self._write(arrays, first, self.draw(key))

    def draw_into(self, arrays: Arrays, first: int, key: Key) -> None:
        """Writes what is drawn to clips of a drawn batch (`mme_core.clips.coded`)."""
        draw = self.draw(key)
        fetching.write_draw(arrays, first, draw, self.store.videos[draw.video], self.spec)

    def _fetch(self, draw: Draw) -> Coded:
        batch = self.form.carve(
            torch.zeros(self.form.size(self.crops), dtype=torch.uint8), self.crops
        )
        self._write({name: value.numpy() for name, value in batch.items()}, 0, draw)
        return batch

    def _zoomed(self, draw: Draw) -> Sample:
        """The finished clips. The coded batch between is no larger than these crops need."""
        form = replace(self.form, largest=max(view.size for view in draw.views))
        memory = torch.from_numpy(_CODED.of(form.size(self.crops)))
        coded = form.carve(memory, self.crops)
        for value in coded.values():
            if value.is_floating_point():  # the bytes of another batch may be no number
                value.zero_()
        self._write({name: value.numpy() for name, value in coded.items()}, 0, draw)
        clips = assemble(coded, self.spec)
        return {n: value.clone() if value is coded.get(n) else value for n, value in clips.items()}

    def _write(self, arrays: Arrays, first: int, draw: Draw) -> None:
        step = draw.speed * self.spec.clip_step
        window = self.store.open_window(draw.video, draw.start, self.tubelets, step)
        fetching.write_draw(arrays, first, draw, window.row, self.spec)
        fetching.write_targets(arrays, first, draw.views, window)
        if self.source == "store":
            left = window.row["count"] - draw.start
            numbers = frame_numbers(self.spec, self.tubelets, draw.speed, left)
            fetching.write_stored_frames(
                arrays, first, draw.views, window, self.spec.patch, numbers
            )
        else:
            canvases = self._from_file(window, draw.start)
            fetching.write_file_frames(arrays, first, draw.views, canvases, self.spec.patch)

    def _speed(self, rng: np.random.Generator, count: int) -> int:
        """A speed for a video of `count` tubelets."""
        fit = [one for one in self.speeds if span(self.spec, self.tubelets, one) <= count]
        return int(rng.choice(fit)) if fit else min(self.speeds)

    def _view(self, rng: np.random.Generator, hp: int, wp: int) -> View:
        if not self.training:
            return geometry.centre_view(hp, wp, self.side)
        view = geometry.draw_view(rng, hp, wp, self.sizes, self.flip)
        if self.crop == "random":
            return view
        centre = geometry.centre_view(hp, wp, view.size)
        return View(centre.top, centre.left, view.size, view.flip)

    def _mask(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = (self.tubelets, self.side, self.side)
        if self.mask == "motion":
            order, picks = motion_draws(shape, self.mask_ratio, rng)
            return {"order": order, "picks": picks}
        return {"mask": make_mask(self.mask, shape, self.mask_ratio, rng).ravel()}

    def _from_file(self, window: StoredWindow, start: int) -> list[np.ndarray]:
        """The window's frames from the video file, as stage 1 saw them: a list of canvases.

        The padding of a short video is left out.
        """
        spec, row = self.spec, window.row
        pts = np.concatenate([part.copy() for _, part in window.parts("pts")])
        hop = TUBELET * spec.stride // spec.clip_step
        first = (start + np.arange(len(pts)) * spec.clip_step) * hop
        raw = (first[:, None] + [0, spec.stride]).ravel()
        try:
            images = read_frames(
                join(self.root, row["path"]),
                raw,
                None if UNORDERED in row["warnings"] else pts.ravel(),
                first=row["first_frame"],
                size=(row["height"], row["width"]),
                square_pixels=spec.square_pixels,
            )
        except VideoError as error:
            raise VideoError(f"{row['id']}, which is in the store: {error}") from error
        canvas = plan_canvas(row["height"], row["width"], spec)
        return [canvas.crop(canvas.resize(image)) for image in images]


def collate(samples: list[Sample]) -> Sample:
    """A batch with a leading axis B; the crops of a video lie side by side in it."""
    batch = default_collate(samples)
    if batch["flip"].ndim == 1:
        return batch
    return {name: value.flatten(0, 1) for name, value in batch.items()}
