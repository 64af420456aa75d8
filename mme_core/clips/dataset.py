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

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from mme_core import cells as cell_arrays
from mme_core.canvas import plan_canvas
from mme_core.clips import geometry, requirements
from mme_core.clips.draws import sample_rng
from mme_core.clips.geometry import View
from mme_core.clips.trajectories import stored_to_raw
from mme_core.errors import VideoError
from mme_core.io.remote import join
from mme_core.io.video import read_frames
from mme_core.masking import make_mask
from mme_core.spec import TUBELET
from mme_core.store import TargetStore
from mme_core.store.window import CodedWindow, decode_jpegs
from mme_core.targets import decode_displacement, decode_hog, pack_valid, unpack_valid

Sample = dict[str, Tensor]


class ClipDataset(Dataset):
    """Item i is a clip of the store's video i; item (epoch, i) is the one that epoch draws.

    What is drawn is a function of (seed, epoch, i) alone, so it does not depend on the number of
    workers, their order, or a resume.

    store       TargetStore, or its path or URL
    frames      T, an even number
    image_size  side of the crop that the model sees, pixels
    source      "store": its JPEG frames; "video": decoded from the video files, the same frames
    root        folder or URL of the video files, for source="video"
    crops       crops of one window, each with its own flip and mask (repeated augmentation)
    crop        "random" or "center"
    zoom        smallest and largest side of the crop in patches; () is no zoom
    flip        mirror half of the samples
    mask        kind of mask (mme_core.masking.MASKS); mask_ratio: share of patches hidden
    cells       descriptors of the store's spec.cells to read as well (`mme_core.cells`)
    training    False, for held-out clips: the middle window and crop, no flip, no zoom, and in
                every epoch the same mask

    Raises UsageError or StoreError, naming the field, for arguments the store cannot serve.
    """

    def __init__(
        self,
        store: TargetStore | str | os.PathLike[str],
        *,
        frames: int = 16,
        image_size: int = 224,
        source: str = "store",
        root: str | os.PathLike[str] | None = None,
        crops: int = 1,
        crop: str = "random",
        zoom: Sequence[int] = (),
        flip: bool = True,
        mask: str = "tube",
        mask_ratio: float = 0.7,
        cells: Sequence[str] = (),
        seed: int = 0,
        training: bool = True,
    ) -> None:
        self.store = store if isinstance(store, TargetStore) else TargetStore(store)
        self.spec = self.store.spec
        self.source, self.root = source, os.fspath(root or "")
        self.crops, self.crop, self.flip = crops, crop, flip
        self.zoom = tuple(zoom) if training else ()
        self.mask, self.mask_ratio = mask, mask_ratio
        self.cells = tuple(cells)
        self.seed, self.training = seed, training
        self.tubelets, self.side = frames // TUBELET, image_size // self.spec.patch
        requirements.check_sizes(frames, image_size, self.spec.patch)
        requirements.check_choices(crops, crop, zoom)
        requirements.check_mask(mask, mask_ratio, (self.tubelets, self.side, self.side))
        requirements.check_cells(self.store, self.cells)
        requirements.check_frames(self.store, source, self.root)
        requirements.check_canvases(self.store, self.sizes[0], image_size, self.zoom)
        requirements.check_lengths(self.store, frames)

    def __len__(self) -> int:
        return len(self.store.videos)

    @property
    def sizes(self) -> tuple[int, int]:
        """Smallest and largest side of a crop, patches."""
        return (self.zoom[0], self.zoom[1]) if self.zoom else (self.side, self.side)

    @property
    def shards(self) -> np.ndarray:
        """The shard of every video, int64 [videos], for `ClipSampler(shards=…)`."""
        return self.store.videos["shard"]

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, video = key if isinstance(key, tuple) else (0, key)
        if not 0 <= video < len(self):
            raise IndexError(f"video {video} of {len(self)}")
        rng = sample_rng(self.seed, epoch if self.training else 0, video)
        row = self.store.videos[video]
        starts = max(row["count"] - (self.tubelets - 1) * self.spec.clip_step, 1)
        start = int(rng.integers(starts)) if self.training else (starts - 1) // 2
        stored = self.source == "store"
        window = self.store.read_coded(video, start, self.tubelets, frames=stored, cells=self.cells)
        canvases = decode_jpegs(window.frames) if stored else self._from_file(row, window)
        samples = [self._crop(rng, window, canvases) for _ in range(self.crops)]
        for sample in samples:
            sample |= {
                "video": torch.tensor(video),
                "start": torch.tensor(start),
                "label": torch.tensor(row["label"]),
            }
        return samples[0] if self.crops == 1 else default_collate(samples)

    def _crop(
        self, rng: np.random.Generator, window: CodedWindow, canvases: list[np.ndarray]
    ) -> Sample:
        view = self._view(rng, window.hp, window.wp)
        patch, side = self.spec.patch, self.side
        images = np.empty((len(canvases), patch * side, patch * side, 3), np.uint8)
        for canvas, image in zip(canvases, images):
            geometry.crop_image(canvas, view, patch, image)
        arrays = self._zoomed(window, view) if self.zoom else _cropped(window, view)
        sample = {name: torch.from_numpy(array) for name, array in arrays.items()}
        sample["frames"] = torch.from_numpy(images)
        sample["flip"] = torch.tensor(view.flip)
        sample["mask"] = torch.from_numpy(self._mask(rng, sample).ravel())
        return sample

    def _view(self, rng: np.random.Generator, hp: int, wp: int) -> View:
        if not self.training:
            return geometry.centre_view(hp, wp, self.side)
        view = geometry.draw_view(rng, hp, wp, self.sizes, self.flip)
        if self.crop == "random":
            return view
        centre = geometry.centre_view(hp, wp, view.size)
        return View(centre.top, centre.left, view.size, view.flip)

    def _zoomed(self, window: CodedWindow, view: View) -> dict[str, np.ndarray]:
        spec, side, grid = self.spec, self.side, self.spec.grid
        rows, columns, inside = geometry.with_border(view, window.hp, window.wp)
        position, shape, moments, bits = (
            getattr(window, name)[:, rows, columns]
            for name in ("position", "shape", "moments", "valid")
        )
        displacement = decode_displacement(position, moments, spec) * np.float32(side / view.size)
        hog = decode_hog(shape, moments, spec)
        valid = unpack_valid(bits, spec.points)
        arrays = {
            "displacement": geometry.zoom_field(displacement, inside, side, grid),
            "hog": geometry.zoom_field(hog, inside, side, grid),
            "valid": pack_valid(geometry.zoom_valid(valid, inside, side, grid)),
        }
        for name in self.cells:
            codes, moments = (
                window.cells[array][:, rows, columns] for array in cell_arrays.array_names((name,))
            )
            sums = cell_arrays.zoomed(name, cell_arrays.decode(codes, moments), side / view.size)
            zoomed = geometry.zoom_field(sums, inside, side, grid)
            arrays[cell_arrays.codes_name(name)] = zoomed
        if window.homography is not None:
            moved = geometry.zoom_homography(window.homography, view, side, spec.patch)
            arrays |= {"homography": moved, "origin": np.zeros(2, np.float32)}
        return arrays

    def _mask(self, rng: np.random.Generator, sample: Sample) -> np.ndarray:
        motion = None
        if self.mask == "motion":
            batch = {name: value[None] for name, value in sample.items()}
            raw = stored_to_raw(batch, self.spec, camera="homography" in sample)
            motion = raw.displacement[0].norm(dim=-1).mean((0, 3, 4)).numpy()
        shape = (self.tubelets, self.side, self.side)
        return make_mask(self.mask, shape, self.mask_ratio, rng, motion)

    def _from_file(self, row: dict, window: CodedWindow) -> list[np.ndarray]:
        """The window's frames from the video file, as stage 1 saw them: a list of canvases."""
        spec = self.spec
        last = (row["count"] - 1 - window.start) // spec.clip_step
        real = min(self.tubelets, last + 1)
        first = (window.start + np.arange(real) * spec.clip_step) * spec.hop
        raw = (first[:, None] + [0, spec.stride]).ravel()
        try:
            images = read_frames(
                join(self.root, row["path"]),
                raw,
                window.pts[:real].ravel(),
                size=(row["height"], row["width"]),
                square_pixels=spec.square_pixels,
            )
        except VideoError as error:
            raise VideoError(f"{row['id']}, which is in the store: {error}") from error
        canvas = plan_canvas(row["height"], row["width"], spec)
        canvases = [canvas.crop(canvas.resize(image)) for image in images]
        return canvases + canvases[-1:] * (TUBELET * (self.tubelets - real))


def _cropped(window: CodedWindow, view: View) -> dict[str, np.ndarray]:
    names = ("position", "shape", "moments", "valid")
    arrays = {name: geometry.crop_patches(getattr(window, name), view) for name in names}
    arrays |= {name: geometry.crop_patches(cells, view) for name, cells in window.cells.items()}
    if window.homography is not None:
        corner = np.array([view.left, view.top], np.float32) * window.spec.patch
        arrays |= {"homography": window.homography, "origin": corner}
    return arrays


def collate(samples: list[Sample]) -> Sample:
    """A batch with a leading axis B; the crops of a video lie side by side in it."""
    batch = default_collate(samples)
    if batch["flip"].ndim == 1:
        return batch
    return {name: value.flatten(0, 1) for name, value in batch.items()}
