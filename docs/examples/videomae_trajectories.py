"""Trains transformers' VideoMAE on pixels, with trajectories as a second target.

    python docs/examples/videomae_trajectories.py STORE

A small model on a CPU, in a minute. docs/plug-in.md explains it.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from mme_core import ClipDataset
from mme_core.clips.contents import TargetSettings, build_targets, content_sizes
from mme_core.clips.dataset import collate
from mme_core.clips.views import to_model_input
from mme_core.losses import reconstruction_loss
from mme_core.tokens import split_tokens

SMALL = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "decoder_hidden_size": 96,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 384,
}


class TwoTargets(nn.Module):
    """VideoMAE, and a linear head for each further target on its decoder's tokens.

    sizes  {name of a target: numbers of a token}
    """

    def __init__(self, config: VideoMAEConfig, sizes: dict[str, int]) -> None:
        super().__init__()
        self.videomae = VideoMAEForPreTraining(config)
        width = config.decoder_hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.videomae.decoder.norm.register_forward_hook(self._keep)

    def _keep(self, _norm: nn.Module, _inputs: tuple[Tensor], tokens: Tensor) -> None:
        self.hidden = tokens  # [B, M, width], the hidden tokens in the order time, row, column

    def forward(self, clip: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """clip [B, T, 3, H, W] and mask [B, N] -> loss of the pixels, {name: [B, M, size]}."""
        loss = self.videomae(clip, bool_masked_pos=mask).loss
        return loss, {name: head(self.hidden) for name, head in self.heads.items()}


def train(store: str, steps: int = 200, image_size: int = 64) -> list[tuple[float, float]]:
    """Returns the losses (pixels, trajectories) of each step."""
    torch.manual_seed(0)
    clips = ClipDataset(store, frames=8, image_size=image_size, mask="tube", mask_ratio=0.7)
    settings = TargetSettings(norm="patch", floor=0.1)
    sizes = content_sizes(["position", "shape"], clips.spec, settings)
    model = TwoTargets(VideoMAEConfig(num_frames=8, image_size=image_size, **SMALL), sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    losses: list[tuple[float, float]] = []
    epoch = 0
    while len(losses) < steps:
        keys = [(epoch, video) for video in torch.randperm(len(clips)).tolist()]
        for batch in DataLoader(clips, batch_size=8, sampler=keys, collate_fn=collate):
            clip, mask = to_model_input(batch["frames"]), batch["mask"]
            pixels, predictions = model(clip.transpose(1, 2), mask)
            targets = build_targets(batch, clips.spec, settings, list(sizes))
            _, hidden = split_tokens(mask, int(mask[0].sum()))
            weights = {"position": 1.0, "shape": 1.0}
            trajectories, _ = reconstruction_loss(predictions, targets, hidden, weights)
            optimizer.zero_grad()
            (pixels + trajectories).backward()
            optimizer.step()
            losses.append((pixels.item(), trajectories.item()))
        epoch += 1
    return losses[:steps]


if __name__ == "__main__":
    every = train(sys.argv[1])
    for number in range(0, len(every), 20):
        pixels, trajectories = (sum(part) / 20 for part in zip(*every[number : number + 20]))
        print(
            f"steps {number:3}-{number + 19}  pixels {pixels:.3f}  trajectories {trajectories:.3f}"
        )
