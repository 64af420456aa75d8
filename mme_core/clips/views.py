"""Chooses the frames and crops of a video for the classifier, as VideoMAE published it.

A *view* is one clip and one crop of a video. Frame numbers count the frames that the caller can
read, so the functions work for video files and for stores.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

DENSE = "dense"
SAMPLINGS = (DENSE, "segment")


def train_indices(
    sampling: str, frames: int, clip: int, stride: int, rng: np.random.Generator
) -> np.ndarray:
    """Frames of one random training clip, int64 [clip], of a video of `frames` frames."""
    if sampling == "segment":
        return _segment_train(frames, clip, rng)
    return _dense_train(frames, clip, stride, rng)


def test_indices(sampling: str, frames: int, clip: int, stride: int, clips: int) -> np.ndarray:
    """Frames of the test clips, int64 [clips, clip], of a video of `frames` frames."""
    if sampling == "segment":
        return _segment_test(frames, clip, clips)
    return _dense_test(frames, clip, stride, clips)


def _dense_train(frames: int, clip: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """A span of clip · stride frames at a random place, read at `clip` evenly spaced points.

    The spacing is (clip · stride) / (clip − 1), a little more than the stride, as published. A
    video no longer than the span is read at its own stride and its last frame fills the clip.
    """
    span = clip * stride
    if frames <= span:
        read = np.linspace(0, frames, num=frames // stride)
        padded = np.concatenate([read, np.full(clip - len(read), frames)])
        return np.clip(padded, 0, frames - 1).astype(np.int64)
    end = int(rng.integers(span, frames))
    points = np.linspace(end - span, end, num=clip)
    return np.clip(points, end - span, end - 1).astype(np.int64)


def _dense_test(frames: int, clip: int, stride: int, clips: int) -> np.ndarray:
    """Clips at exactly the stride, their starts evenly spread over the video (one: centred)."""
    read = np.arange(0, frames, stride)
    read = np.concatenate([read, np.full(max(clip - len(read), 0), read[-1])])
    room = len(read) - clip
    starts = [room // 2] if clips == 1 else [int(i * room / (clips - 1)) for i in range(clips)]
    return np.stack([read[start : start + clip] for start in starts]).astype(np.int64)


def _segment_train(frames: int, clip: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame of each of `clip` equal segments (TSN).

    A video with fewer frames than segments is read at sorted random frames.
    """
    duration = frames // clip
    if duration > 0:
        return np.arange(clip) * duration + rng.integers(duration, size=clip)
    return np.sort(rng.integers(frames, size=clip))


def _segment_test(frames: int, clip: int, clips: int) -> np.ndarray:
    """Clip v takes the point v / clips of each segment; SSv2's two clips: its start, its middle.

    A single clip takes the middles.
    """
    tick = frames / clip
    offset = tick / 2 if clips == 1 else np.arange(clips)[:, None] * tick / clips
    return (offset + np.arange(clip) * tick).reshape(clips, clip).astype(np.int64)


def short_side_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) after a resize of the shorter side to `side`; the longer is rounded down."""
    if width < height:
        return int(side * height / width), side
    return side, int(side * width / height)


def resize_short_side(frames: np.ndarray, side: int) -> np.ndarray:
    """uint8 [T, H, W, 3] with the shorter side at `side` pixels, bilinear."""
    _, height, width, _ = frames.shape
    height, width = short_side_size(height, width, side)
    return resize(frames, height, width)


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [T, H, W, 3] → [T, height, width, 3], bilinear with half-pixel centres."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack(
        [cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in frames]
    )


def test_crops(height: int, width: int, side: int, crops: int) -> list[tuple[int, int]]:
    """(top, left) of `crops` squares spread along the longer side of a frame, short side `side`.

    One crop is centred; three are left, centre, right (or top, centre, bottom).
    """
    room = max(height, width) - side
    if crops == 1:
        places = [round(room / 2)]
    else:
        places = [int(i * room / (crops - 1)) for i in range(crops)]
    return [(place, 0) if height >= width else (0, place) for place in places]


def test_views(clips_VTHW3: list[np.ndarray], side: int, crops: int) -> np.ndarray:
    """All views of a video: uint8 [clips · crops, T, side, side, 3], clip-major."""
    views = []
    for clip in clips_VTHW3:
        resized = resize_short_side(clip, side)
        _, height, width, _ = resized.shape
        for top, left in test_crops(height, width, side, crops):
            views.append(resized[:, top : top + side, left : left + side])
    return np.stack(views)


def still(indices: np.ndarray) -> np.ndarray:
    """Replaces every frame of a clip by its middle frame, which removes the motion."""
    middle = indices[..., indices.shape[-1] // 2, None]
    return np.broadcast_to(middle, indices.shape).copy()


def to_model_input(frames_BTHW3: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 frames → the model's input [B, 3, T, H, W], ImageNet mean and deviation."""
    return _normalise(frames_BTHW3.permute(0, 4, 1, 2, 3), (3, 1, 1, 1), dtype).contiguous()


def to_model_patches(patches_BVD: Tensor) -> Tensor:
    """uint8 patches (`mme_core.tokens.cut_patches`) → float32, normalised as `to_model_input`."""
    return _normalise(patches_BVD.unflatten(-1, (3, -1)), (3, 1), torch.float32).flatten(-2)


def _normalise(pixels: Tensor, channels: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`channels`: the shape in which a number for each channel broadcasts to the pixels."""
    # Filled on the device: a copy of numbers from the host would wait for the device's work.
    mean, std = (
        torch.stack([torch.full((), v, device=pixels.device, dtype=dtype) for v in values])
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    return (pixels.to(dtype) / 255 - mean.view(channels)) / std.view(channels)


def evenly_spread(frames: int, count: int) -> np.ndarray:
    """`count` frames of a video of `frames` frames: the middles of equal segments, int64."""
    return _segment_test(frames, count, 1)[0]


def centre_crop(frames_THW3: np.ndarray, side: int) -> np.ndarray:
    """The middle square of frames resized by their shorter side: uint8 [T, side, side, 3]."""
    return test_views([frames_THW3], side, 1)[0]
