import pytest

from mme_core.model import build_classifier
from train.engine.layer_decay import layer_decay_groups, layer_of


def test_layers_of_a_twelve_block_encoder():
    assert layer_of("encoder.patch_embed.proj.weight", 12) == 0
    assert layer_of("encoder.blocks.0.attn.qkv.weight", 12) == 1
    assert layer_of("encoder.blocks.11.norm2.bias", 12) == 12
    assert layer_of("fc_norm.weight", 12) == 13
    assert layer_of("head.bias", 12) == 13


def test_groups_have_the_published_scales_and_decays():
    model = build_classifier("tiny", 5, frames=4, image_size=32)
    groups = layer_decay_groups(model, 12, 0.75, 0.05)
    assert len(groups) == 2 * 14
    by_name = {name: group for group in groups for name in group["names"]}
    # layer l of 0 … 13 learns at 0.75^(13 − l)
    for name, scale, decay in [
        ("encoder.patch_embed.proj.weight", 0.75**13, 0.05),
        ("encoder.patch_embed.proj.bias", 0.75**13, 0.0),
        ("encoder.blocks.0.attn.qkv.weight", 0.75**12, 0.05),
        ("encoder.blocks.0.attn.qkv.bias", 0.75**12, 0.0),
        ("encoder.blocks.11.mlp.fc2.weight", 0.75, 0.05),
        ("encoder.blocks.11.norm1.weight", 0.75, 0.0),
        ("fc_norm.weight", 1.0, 0.0),
        ("head.weight", 1.0, 0.05),
        ("head.bias", 1.0, 0.0),
    ]:
        assert by_name[name]["lr_scale"] == pytest.approx(scale)
        assert by_name[name]["weight_decay"] == decay
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
