"""RandAugment and flip on the device, as `train.data.augment.crop_clip` drew them.

Each operation takes all frames of a clip at once, uint8 [T, 3, H, W], and the arguments of timm's
function of that name. Nothing here copies numbers from the host to the device: such a copy would
wait for the device's work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from train.data.augment import FILL, Drawn
from train.engine.device import fill


def augments_on_device(place: str, device: torch.device) -> bool:
    """The recipe's `augment.place`; auto: on CUDA, which the loader's workers cannot keep busy."""
    return device.type == "cuda" if place == "auto" else place == "device"


def augment_batch(frames_BTHW3: Tensor, drawn: Sequence[Drawn]) -> Tensor:
    """What was drawn for each clip, done to all its frames; uint8, the same shape."""
    return torch.stack([augment(clip, one) for clip, one in zip(frames_BTHW3, drawn, strict=True)])


def augment(clip_THW3: Tensor, drawn: Drawn) -> Tensor:
    """uint8 [T, H, W, 3] → the same shape."""
    clip = clip_THW3.permute(0, 3, 1, 2)
    if drawn.operations:
        clip = clip.contiguous()
    for name, arguments in drawn.operations:
        clip = OPERATIONS[name](clip, *arguments)
    if drawn.flip:
        clip = clip.flip(-1)
    return clip.permute(0, 2, 3, 1)


def affine(clip: Tensor, a: float, b: float, c: float, d: float, e: float, f: float) -> Tensor:
    """The pixel at (x, y) comes from (a·x + b·y + c, d·x + e·y + f), as Pillow counts them.

    Bicubic. torch's cubic has the slope −0.75 and Pillow's −1, so the results differ by a few
    levels at edges. torchvision's own function is bilinear and differs by more.
    """
    height, width = clip.shape[-2:]
    x = torch.arange(width, device=clip.device) + 0.5
    y = torch.arange(height, device=clip.device)[:, None] + 0.5
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    grid = torch.stack((from_x * (2 / width) - 1, from_y * (2 / height) - 1), -1)
    moved = F.grid_sample(
        clip.float(),
        grid.expand(len(clip), -1, -1, -1),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    # Pillow cuts fractions off. The thousandth keeps whole numbers whole.
    moved = (moved + 1e-3).clamp(0, 255)
    return torch.where(inside, moved, fill(FILL, clip.device)[:, None, None]).to(torch.uint8)


def rotate(clip: Tensor, degrees: float) -> Tensor:
    """Counter-clockwise around the centre."""
    height, width = clip.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return affine(clip, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def solarize(clip: Tensor, threshold: int) -> Tensor:
    return clip if threshold > 255 else vision.solarize(clip, threshold)


def solarize_add(clip: Tensor, added: int) -> Tensor:
    return torch.where(clip < 128, clip + added, clip)  # `added` is at most 128


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """torchvision's function copies its kernel from the host; this one gives the same."""
    image = clip.float()
    inner = image[..., 1:-1, 1:-1]
    smooth = ((9 * F.avg_pool2d(image, 3, 1) + 4 * inner) / 13).round()
    inner.copy_(smooth.add(inner - smooth, alpha=factor))
    return image.clamp(0, 255).to(torch.uint8)


def gaussian_blur(clip: Tensor, radius: float) -> Tensor:
    side = 2 * math.ceil(3 * radius) + 1
    return vision.gaussian_blur(clip, [side, side], [radius, radius])


# By timm's names: all that its descriptions of RandAugment can name.
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "AutoContrast": vision.autocontrast,
    "Equalize": vision.equalize,
    "Invert": vision.invert,
    "Rotate": rotate,
    "Posterize": vision.posterize,
    "PosterizeIncreasing": vision.posterize,
    "Solarize": solarize,
    "SolarizeIncreasing": solarize,
    "SolarizeAdd": solarize_add,
    "Color": vision.adjust_saturation,
    "ColorIncreasing": vision.adjust_saturation,
    "Desaturate": lambda clip, factor: vision.adjust_saturation(clip, 1 - factor),
    "Contrast": vision.adjust_contrast,
    "ContrastIncreasing": vision.adjust_contrast,
    "Brightness": vision.adjust_brightness,
    "BrightnessIncreasing": vision.adjust_brightness,
    "Sharpness": sharpness,
    "SharpnessIncreasing": sharpness,
    "ShearX": lambda clip, factor: affine(clip, 1, factor, 0, 0, 1, 0),
    "ShearY": lambda clip, factor: affine(clip, 1, 0, 0, factor, 1, 0),
    "TranslateXRel": lambda clip, share: affine(clip, 1, 0, share * clip.shape[-1], 0, 1, 0),
    "TranslateYRel": lambda clip, share: affine(clip, 1, 0, 0, 0, 1, share * clip.shape[-2]),
    "GaussianBlur": gaussian_blur,
}
