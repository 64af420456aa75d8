"""Model, targets and loss together learn: the smallest experiment that shows it."""

import numpy as np
import pytest
import torch

from mme_core.clips.contents import build_targets
from mme_core.clips.settings import TargetSettings
from mme_core.losses import reconstruction_loss
from mme_core.masking import hidden_count, make_mask
from mme_core.model import build_pretraining_model
from mme_core.spec import TargetSpec
from mme_core.tokens import split_tokens, take_tokens

SPEC = TargetSpec(stride=2)
FRAMES, SIDE = 8, 64
GRID = (4, 4, 4)


def translating_textures(batch, generator):
    """Clips of a random periodic texture that moves by up to 2 pixels a raw frame."""
    velocity = (torch.rand(batch, 2, generator=generator) - 0.5) * 4
    frequency = torch.fft.fftfreq(SIDE)
    fx, fy = frequency[None, :], frequency[:, None]
    smooth = torch.exp(-((fx.square() + fy.square()) * 200))
    texture = torch.fft.fft2(torch.randn(batch, SIDE, SIDE, generator=generator)) * smooth
    time = torch.arange(FRAMES) * SPEC.stride
    moved = velocity[:, None, :] * time[:, None]  # [B, T, 2]
    phase = fx * moved[..., 0, None, None] + fy * moved[..., 1, None, None]
    images = torch.fft.ifft2(texture[:, None] * torch.exp(-2j * torch.pi * phase)).real
    images = images / images.std((1, 2, 3), keepdim=True)
    track = (*GRID, SPEC.points, SPEC.length)
    batch_of = {
        "frames": torch.zeros(batch, FRAMES, SIDE, SIDE, 3, dtype=torch.uint8),
        "displacement": velocity.reshape(batch, *[1] * len(track), 2).expand(batch, *track, 2),
        "hog": torch.zeros(batch, *track, SPEC.hog_bins),
        "valid": torch.full((batch, *GRID), 15, dtype=torch.uint8),
        "flip": torch.zeros(batch, dtype=torch.bool),
    }
    return images[:, None].expand(-1, 3, -1, -1, -1), batch_of


@pytest.mark.slow
def test_position_is_learnt_from_translating_textures():
    torch.manual_seed(0)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    model = build_pretraining_model(
        "tiny",
        depth=4,
        frames=FRAMES,
        image_size=SIDE,
        heads={"position": 48},
        decoder_width=192,
        decoder_heads=3,
    )
    steps = 400
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, steps, pct_start=0.1)
    hidden = hidden_count(GRID, 0.7)
    ratios = []
    for _ in range(steps):
        clip, batch = translating_textures(32, generator)
        masks = [make_mask("tube", GRID, 0.7, rng).ravel() for _ in range(32)]
        mask = torch.from_numpy(np.stack(masks))
        targets = build_targets(batch, SPEC, TargetSettings(norm="none"), ["position"])
        hidden_BM = split_tokens(mask, hidden)[1]
        loss, _ = reconstruction_loss(
            model(clip, mask, hidden), targets, hidden_BM, {"position": 1.0}
        )
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        constant = take_tokens(targets["position"][0], hidden_BM).var((0, 1), correction=0).mean()
        ratios.append(float(loss.detach() / constant))
    print(f"position loss over the best constant's: {sum(ratios[-20:]) / 20:.3f}")
    assert sum(ratios[-20:]) / 20 < 0.05
