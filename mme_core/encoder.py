"""Computes features of any video with a trained encoder.

encoder = load_encoder("runs/mine")              # a run's folder or a file of weights
features = encoder.features(frames)              # uint8 [T, H, W, 3] -> float32 [width]
encoder.save_pretrained("folder")                # load_encoder("folder") reads it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mme_core.clips.views import centre_crop, evenly_spread, to_model_input
from mme_core.errors import UsageError
from mme_core.model import build_classifier, build_pretraining_model
from mme_core.transformer import Encoder
from mme_core.weights.load import Weights, clip_arguments, load_weights, read_weights
from mme_core.weights.save import recipe_of_clips, save_folder


class VideoEncoder(nn.Module):
    """An encoder and the norm after its mean over tokens (an identity unless fine-tuned).

    recipe  how the clips of its training were drawn, {"data": {"stride": 4}}; {} if not known
    """

    def __init__(
        self, encoder: Encoder, fc_norm: nn.Module, recipe: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.fc_norm = encoder, fc_norm
        self.recipe = recipe or {}

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.encoder.width

    def tokens(self, clip: Tensor) -> Tensor:
        """[B, 3, T, H, W] → [B, N, width], after the encoder's last norm where it has one."""
        return self.encoder(clip)

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, N, width] → [B, width]."""
        return self.fc_norm(tokens.mean(1))

    @torch.inference_mode()
    def features(self, frames: np.ndarray | Tensor) -> Tensor:
        """Returns the feature of a video, float32 [width], or of a batch, float32 [B, width].

        frames  uint8 [T, H, W, 3] or [B, T, H, W, 3], RGB, of any size and number of frames. The
                model sees as many frames as it was trained with, spread evenly over the video,
                resized to its image size by the shorter side and cropped in the middle.

        Raises UsageError for frames of another shape or type.
        """
        if isinstance(frames, np.ndarray):
            frames = np.ascontiguousarray(frames)  # torch refuses views such as bgr[..., ::-1]
        videos = torch.as_tensor(frames)
        if videos.dtype != torch.uint8 or videos.ndim not in (4, 5) or videos.shape[-1] != 3:
            raise UsageError(
                f"frames are {videos.dtype} {list(videos.shape)}; they must be uint8 [T, H, W, 3] "
                "or [B, T, H, W, 3]"
            )
        if not videos.numel():
            raise UsageError(f"frames are empty: {list(videos.shape)}")
        batch = videos if videos.ndim == 5 else videos[None]
        _, count, side, _ = self.encoder.clip_shape
        chosen = evenly_spread(batch.shape[1], count)
        clips = np.stack([centre_crop(video[chosen].cpu().numpy(), side) for video in batch])
        device = next(self.parameters()).device
        pooled = self.pool(self.tokens(to_model_input(torch.from_numpy(clips).to(device))))
        return pooled.float() if videos.ndim == 5 else pooled[0].float()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors, the layout of the Hugging Face hub.

        Raises UsageError where they cannot be written, or would replace another model.
        """
        _, frames, side, _ = self.encoder.clip_shape
        save_folder(
            Path(folder), self.state_dict(), frames=frames, image_size=side, recipe=self.recipe
        )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> VideoEncoder:
        """The same as `load_encoder`."""
        return load_encoder(path)


def load_encoder(path: str | Path) -> VideoEncoder:
    """Loads the encoder of a run's folder, a checkpoint or a file of weights, in evaluation mode.

    Formats and errors as of `mme_core.weights.load.read_weights`.
    """
    return encoder_from(read_weights(path))


def encoder_from(weights: Weights) -> VideoEncoder:
    """The encoder of a pre-trained or a fine-tuned file, in evaluation mode.

    Raises UsageError for a fine-tuned one without the norm after its mean over tokens.
    """
    clip, recipe = clip_arguments(weights), recipe_of_clips(weights.recipe)
    if "encoder.norm.weight" in weights.tensors:
        encoder = build_pretraining_model(weights.size, **clip).encoder
        model = VideoEncoder(encoder, nn.Identity(), recipe)
    else:
        classifier = build_classifier(weights.size, 1, **clip)
        model = VideoEncoder(classifier.encoder, classifier.fc_norm, recipe)
    report = load_weights(model, weights, head=False)
    if "fc_norm.weight" in report.missing:
        raise UsageError(
            f"{weights.path}: it lacks fc_norm, the norm after the mean over tokens, which belongs "
            "to a fine-tuned encoder: use the file of the whole classifier, or export it again"
        )
    return model.eval()


def random_encoder(
    seed: int, size: str, *, frames: int, image_size: int, patch: int, depth: int | None
) -> VideoEncoder:
    """An encoder with the weights that pre-training starts from, in evaluation mode.

    The caller's random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_pretraining_model(
            size, frames=frames, image_size=image_size, patch=patch, depth=depth
        )
    return VideoEncoder(model.encoder, nn.Identity()).eval()
