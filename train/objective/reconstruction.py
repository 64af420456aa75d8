"""Pre-training: the model, and the loss on a batch of the loader.

`PretrainStep` goes from the raw batch to the loss in one graph for torch.compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mme_core.clips.appearance import shuffle_frames
from mme_core.clips.assembly import assemble
from mme_core.clips.contents import build_targets, content_sizes, content_weights
from mme_core.clips.settings import TargetSettings
from mme_core.clips.views import to_model_patches
from mme_core.errors import named
from mme_core.losses import reconstruction_loss, visible_loss
from mme_core.masking import hidden_count
from mme_core.model import PretrainingModel, build_pretraining_model
from mme_core.spec import TUBELET, TargetSpec
from mme_core.tokens import cut_patches, distance_to_hidden, split_tokens, take_tokens
from train.recipes.pretraining import RESIDUALS, PretrainConfig


class Question(NamedTuple):
    """The input of the model for one batch and the targets of its answer, on the device."""

    patches: Tensor  # float [B, V, D], the visible patches, normalised
    visible: Tensor  # int64 [B, V], indices of the visible tokens
    hidden: Tensor  # int64 [B, M], indices of the hidden tokens
    targets: dict[str, tuple[Tensor, Tensor]]  # {content: (target, valid)}, all tokens


@dataclass(frozen=True)
class Objective:
    """The loss of a recipe on batches of a store's clips.

    weights       {content: factor of its loss}
    sizes         {content: D}, numbers predicted for each token
    hidden        M, hidden tokens of every clip
    mask_invalid  leave invalid trajectories out of the loss
    visible       factor of the loss on visible tokens; 0: hidden tokens alone (the paper)
    grid          tubelets, rows and columns of a clip's tokens
    shuffle       put the frames in random order (Figure 3)
    dtype         of autocast; float32 turns autocast off
    """

    spec: TargetSpec
    settings: TargetSettings
    weights: Mapping[str, float]
    sizes: Mapping[str, int]
    hidden: int
    mask_invalid: bool
    visible: float
    grid: tuple[int, int, int]
    shuffle: bool
    device: torch.device
    dtype: torch.dtype

    @classmethod
    @named(
        norm="norm.kind",
        floor="norm.floor",
        camera="norm.camera",
        length="target.length",
        merge="target.merge",
        contents="loss.contents",
        weights="loss.weights",
        ratio="mask.ratio",
    )
    def of(
        cls, config: PretrainConfig, spec: TargetSpec, device: torch.device, dtype: torch.dtype
    ) -> Objective:
        side = config.model.image_size // config.model.patch
        settings = TargetSettings(
            norm=config.norm.kind,
            floor=config.norm.floor,
            camera=config.norm.camera,
            length=config.target.length,
            merge=config.target.merge,
        )
        weights = content_weights(config.loss.contents, config.loss.weights)
        grid = (config.model.frames // TUBELET, side, side)
        return cls(
            spec=spec,
            settings=settings,
            weights=weights,
            sizes=content_sizes(list(weights), spec, settings),
            hidden=hidden_count(grid, config.mask.ratio),
            mask_invalid=config.loss.mask_invalid,
            visible=config.loss.visible,
            grid=grid,
            shuffle=config.data.shuffle_frames,
            device=device,
            dtype=dtype,
        )

    @torch.no_grad()
    def ask(self, batch: Mapping[str, Tensor]) -> Question:
        """Targets and the model's input of a (coded) batch that is on the device."""
        batch = assemble(batch, self.spec)
        frames = batch["frames"]
        if self.shuffle:
            frames = shuffle_frames(frames)
            batch = {**batch, "frames": frames}
        targets = build_targets(batch, self.spec, self.settings, list(self.weights))
        visible, hidden = split_tokens(batch["mask"], self.hidden)
        # Chosen as bytes, so that only a third of the pixels is normalised and moved as floats.
        patches = cut_patches(frames.permute(0, 4, 1, 2, 3), self.spec.patch)
        seen = to_model_patches(take_tokens(patches, visible))
        return Question(seen, visible, hidden, targets)

    def predict(self, model: PretrainingModel, question: Question) -> dict[str, Tensor]:
        """{content: [B, M, D]} for the hidden tokens, from the encoder's end."""
        with self.autocast():
            return model.predict(question.patches, question.visible, question.hidden)

    def autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def loss(
        self, predictions: Mapping[str, Tensor], question: Question
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each content's own loss (equation 1)."""
        return reconstruction_loss(
            predictions,
            question.targets,
            question.hidden,
            self.weights,
            mask_invalid=self.mask_invalid,
        )

    def training_loss(
        self, model: PretrainingModel, question: Question
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the model's depths and the encoder's end, and its parts.

        The parts are those of the end, and "early", the mean of the earlier depths.
        """
        with self.autocast():
            answers = model.predict_depths(
                question.patches, question.visible, question.hidden, seen_too=self.visible > 0
            )
        losses, terms = zip(*(self._loss_with_visible(answer, question) for answer in answers))
        if len(losses) == 1:
            return losses[0], terms[0]
        each = torch.stack(losses)
        return each.mean(), {**terms[-1], "early": each[:-1].mean()}

    def _loss_with_visible(
        self, predictions: Mapping[str, Tensor], question: Question
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on hidden tokens plus that on visible ones, which is also the part "visible"."""
        if not self.visible:
            return self.loss(predictions, question)
        count = question.visible.shape[1]
        hidden = {name: value[:, count:] for name, value in predictions.items()}
        total, terms = self.loss(hidden, question)
        visible = visible_loss(
            {name: value[:, :count] for name, value in predictions.items()},
            question.targets,
            question.visible,
            distance_to_hidden(question.visible, question.hidden, self.grid),
            self.weights,
            mask_invalid=self.mask_invalid,
        )
        return total + self.visible * visible, {**terms, "visible": visible}


class PretrainStep(nn.Module):
    """From a batch on the device to the loss and its parts: what is compiled and run under DDP."""

    def __init__(self, model: PretrainingModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective.training_loss(self.model, self.objective.ask(batch))


@named(
    size="model.size",
    frames="model.frames",
    image_size="model.image_size",
    patch="model.patch",
    decoder="decoder.kind",
    decoder_width="decoder.width",
    decoder_heads="decoder.heads",
    head_layers="decoder.head_layers",
    depths="loss.depths",
)
def build_model(config: PretrainConfig, sizes: Mapping[str, int]) -> PretrainingModel:
    """The model of the recipe, with random weights.

    sizes  {content: numbers predicted for each token}; each content gets a head
    """
    return build_pretraining_model(
        config.model.size,
        depth=config.model.depth,
        decoder=config.decoder.kind,
        decoder_depth=config.decoder.depth,
        decoder_width=config.decoder.width,
        decoder_heads=config.decoder.heads,
        head_layers=config.decoder.head_layers,
        heads=sizes,
        frames=config.model.frames,
        image_size=config.model.image_size,
        patch=config.model.patch,
        residual=RESIDUALS[config.model.residual],
        depths=config.loss.depths,
    )
