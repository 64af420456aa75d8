import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mme_core.errors import UsageError
from mme_core.flops import classifier_flops, pretraining_flops
from mme_core.model import build_classifier, build_pretraining_model
from mme_core.tokens import count_hidden, cut_patches, sinusoid_table, split_tokens, take_tokens
from mme_core.transformer import unfuse_attention

SMALL = {"frames": 4, "image_size": 32, "depth": 2, "decoder_width": 48, "decoder_heads": 2}


def some_masks(batch=3, tokens=8, hidden=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(batch, tokens, generator=generator).argsort(1)
    return order < hidden


def a_model(seed=0, **options):
    torch.manual_seed(seed)
    return build_pretraining_model("tiny", **{**SMALL, **options}).eval()


def a_clip(batch=3, seed=0):
    return torch.randn(batch, 3, 4, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("decoder", "depth", "giga"),
    [("joint", 1, 51), ("joint", 2, 55), ("separate", 1, 56), ("separate", 2, 65)],
)
def test_multiply_adds_are_the_papers(decoder, depth, giga):
    """Table 7f, ViT-B, 16 × 224², 137 of 196 positions masked."""
    with torch.device("meta"):
        model = build_pretraining_model("base", decoder=decoder, decoder_depth=depth)
        clip, mask = torch.empty(1, 3, 16, 224, 224), torch.empty(1, 1568, dtype=torch.bool)
    assert pretraining_flops(model, 8 * 137) / 2e9 == pytest.approx(giga, rel=0.02)
    predictions = model(clip, mask, hidden=8 * 137)
    assert {name: tuple(p.shape) for name, p in predictions.items()} == {
        "position": (1, 1096, 48),
        "shape": (1, 1096, 216),
    }


@pytest.mark.parametrize(
    "options", [{}, {"decoder": "separate"}, {"depth": 3, "depths": (1, 2)}], ids=str
)
def test_counted_flops_are_those_of_a_pass_that_skips_nothing(options):
    with torch.device("meta"):
        model = build_pretraining_model("tiny", **{**SMALL, **options})
        clip, mask = torch.empty(1, 3, 4, 32, 32), torch.empty(1, 8, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        pass_without_skipping(model, clip, mask, 5)
    assert pretraining_flops(model, 5) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.predict_depths(*visible_patches(clip, mask))
    assert counter.get_total_flops() < pretraining_flops(model, 5)


def visible_patches(clip, mask):
    """The patches of the visible tokens, and the indices of both kinds of tokens."""
    seen, asked = split_tokens(mask, 5)
    return take_tokens(cut_patches(clip, 16), seen), seen, asked


def pass_without_skipping(model, clip, mask, hidden):
    """Embeds all patches, and sends all tokens, in their own places, through every block."""
    tokens = model.encoder.patch_embed(cut_patches(clip, 16)) + model.encoder.pos_embed
    x = take_tokens(tokens, split_tokens(mask, hidden)[0])
    for number, block in enumerate(model.encoder.blocks, start=1):
        x = block(x)
        if number in (*model.depths, len(model.encoder.blocks)):
            predictions = decode_without_skipping(model, model.encoder.norm(x), clip, mask, hidden)
    return predictions


def decode_without_skipping(model, x, clip, mask, hidden):
    seen, asked = split_tokens(mask, hidden)
    predictions = {}
    for part in model.decoders.values():
        y = part.mask_token.expand(len(clip), mask.shape[1], -1)
        y = y.scatter(1, seen[..., None].expand(-1, -1, y.shape[-1]), part.embed(x))
        y = y + part.pos_embed
        for block in part.blocks:
            y = block(y)
        y = take_tokens(part.norm(y), asked)
        predictions |= {name: head(y) for name, head in part.heads.items()}
    return predictions


def test_classifier_has_the_papers_size():
    with torch.device("meta"):
        model, clip = build_classifier("base", 400), torch.empty(1, 3, 16, 224, 224)
    with FlopCounterMode(display=False) as counter:
        assert model(clip).shape == (1, 400)
    assert classifier_flops(model) == counter.get_total_flops()
    assert counter.get_total_flops() / 2e9 == pytest.approx(180, rel=0.02)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(87, rel=0.02)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_sizes(size):
    width, depth = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}[
        size
    ]
    with torch.device("meta"):
        model = build_pretraining_model(size)
    assert len(model.encoder.blocks) == depth and model.encoder.width == width


def test_patch_embedding_is_the_convolution():
    embed = a_model().encoder.patch_embed
    clip = a_clip()
    expected = embed.proj(clip).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(cut_patches(clip, 16)), expected, rtol=1e-4, atol=1e-5)


def test_indices_are_in_token_order():
    mask = some_masks()
    visible, hidden = split_tokens(mask, 5)
    for row in range(3):
        assert visible[row].tolist() == (~mask[row]).nonzero().flatten().tolist()
        assert hidden[row].tolist() == mask[row].nonzero().flatten().tolist()


def test_predictions_do_not_see_the_hidden_patches():
    model, clip, mask = a_model(), a_clip(), some_masks()
    pixels = mask.reshape(3, 2, 2, 2).repeat_interleave(2, 1)
    pixels = pixels.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, None]
    other = torch.where(pixels, torch.randn_like(clip), clip)
    assert not torch.equal(clip, other)
    for name, value in model(clip, mask).items():
        torch.testing.assert_close(model(other, mask)[name], value)
    torch.testing.assert_close(model.encode(other, mask), model.encode(clip, mask))


@pytest.mark.parametrize("options", [{}, {"decoder": "separate", "decoder_depth": 2}])
def test_skipping_hidden_tokens_changes_nothing(options):
    model, clip, mask = a_model(**options), a_clip(), some_masks()
    expected = pass_without_skipping(model, clip, mask, 5)
    for name, value in model(clip, mask).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    for row in range(3):
        tokens = model.encoder.patch_embed(cut_patches(clip[row : row + 1], 16))
        x = (tokens + model.encoder.pos_embed)[:, ~mask[row]]
        for block in model.encoder.blocks:
            x = block(x)
        torch.testing.assert_close(model.encode(clip, mask)[row], model.encoder.norm(x)[0])


def test_predictions_of_patches_are_those_of_the_clip():
    model, clip, mask = a_model(), a_clip(), some_masks()
    for name, value in model.predict(*visible_patches(clip, mask)).items():
        assert torch.equal(value, model(clip, mask)[name])


def test_a_depth_is_asked_as_if_the_encoder_ended_there():
    model, clip, mask = a_model(depth=3, depths=(1, 2)), a_clip(), some_masks()
    answers = model.predict_depths(*visible_patches(clip, mask))
    assert len(answers) == 3
    for blocks, answer in enumerate(answers, start=1):
        shorter = a_model(depth=blocks)
        shorter.load_state_dict(model.state_dict(), strict=False)
        for name, value in shorter(clip, mask).items():
            assert torch.equal(answer[name], value)


def test_depths_change_neither_weights_nor_predictions():
    model, plain, clip, mask = a_model(depths=(1,)), a_model(), a_clip(), some_masks()
    weights, others = model.state_dict(), plain.state_dict()
    assert list(weights) == list(others)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for name, value in plain(clip, mask).items():
        assert torch.equal(model(clip, mask)[name], value)


def test_tokens_between_blocks_may_be_bf16():
    clip, mask = a_clip(), some_masks()
    seen = []
    model = a_model(residual=torch.bfloat16)
    for blocks in (model.encoder.blocks, model.decoders["joint"].blocks):
        blocks[-1].norm1.register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        half, full = model(clip, mask), a_model()(clip, mask)
    assert seen == [torch.bfloat16] * 2
    for name, value in half.items():
        torch.testing.assert_close(value, full[name], rtol=0.1, atol=0.05)


@pytest.mark.parametrize("depth", [1, 2])
def test_unfused_attention_predicts_the_same(monkeypatch, depth):
    clip, mask = a_clip(), some_masks()
    model = a_model(decoder_depth=depth)
    fused = model(clip, mask)
    unfuse_attention(model)
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    for name, value in model(clip, mask).items():
        torch.testing.assert_close(value, fused[name], rtol=0, atol=1e-5)


def test_encode_without_a_mask_gives_all_tokens():
    model, clip = a_model(), a_clip()
    assert model.encode(clip).shape == (3, 8, 192)


def test_options_reach_the_model():
    model = a_model(
        decoder="separate", decoder_depth=2, head_layers=2, heads={"pixel": 7, "hog": 36}
    )
    assert list(model.decoders) == ["pixel", "hog"]
    assert len(model.decoders["pixel"].blocks) == 2
    assert len(model.decoders["hog"].heads["hog"]) == 3
    shapes = {k: tuple(v.shape) for k, v in model(a_clip(), some_masks()).items()}
    assert shapes == {"pixel": (3, 5, 7), "hog": (3, 5, 36)}
    other = build_pretraining_model("tiny", frames=2, image_size=24, patch=8, depth=1)
    assert other.encode(torch.zeros(1, 3, 2, 24, 24)).shape == (1, 9, 192)


def test_every_parameter_is_trained():
    model = a_model(decoder="separate")
    loss = sum(value.square().sum() for value in model(a_clip(), some_masks()).values())
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_initial_weights_are_videomaes():
    model = a_model()
    bound = (6 / (192 + 3 * 192)) ** 0.5  # xavier of the fused projection
    weight = model.encoder.blocks[0].attn.qkv.weight.detach()
    assert weight.abs().max() <= bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert model.encoder.blocks[0].attn.qkv.bias.abs().max() == 0
    assert model.encoder.blocks[0].norm1.eps == 1e-6
    assert 0.01 < model.decoders["joint"].mask_token.std() < 0.03


def test_sinusoid_is_videomaes_table():
    table = sinusoid_table(5, 6)
    assert table[0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[0, 3, 2].item() == pytest.approx(torch.sin(torch.tensor(3 / 10000 ** (2 / 6))))


def test_classifier_takes_the_encoder():
    model = a_model()
    classifier = build_classifier(
        "tiny", 5, frames=4, image_size=32, depth=2, drop_path=0.3, fc_dropout=0.5
    )
    encoder = {k: v for k, v in model.state_dict().items() if k.startswith("encoder.")}
    missing, unexpected = classifier.load_state_dict(encoder, strict=False)
    assert {name.split(".")[0] for name in missing} == {"fc_norm", "head"}
    assert unexpected == ["encoder.norm.weight", "encoder.norm.bias"]
    classifier.eval()
    tokens = classifier.encoder(a_clip())
    torch.testing.assert_close(model.encode(a_clip()), model.encoder.norm(tokens))
    torch.testing.assert_close(
        classifier.features(a_clip()), torch.layer_norm(tokens.mean(1), (192,), eps=1e-6)
    )
    assert classifier.encoder.blocks[1].drop_path1.drop_prob == pytest.approx(0.3)
    assert classifier(a_clip()).abs().max() < 0.05  # starts near uniform


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"frames": 5}, "frames="),
        ({"image_size": 40}, "image_size="),
        ({"decoder": "both"}, "decoder="),
        ({"head_layers": 3}, "head_layers="),
        ({"decoder_heads": 5}, "decoder_width="),
        ({"decoder_depth": 0}, "decoder_depth=0 must be at least 1"),
        ({"decoder_heads": 0}, "decoder_heads=0 must be at least 1"),
        ({"decoder_width": 0}, "decoder_width=0 must be at least 1"),
        ({"depth": 0}, "^depth=0 must be at least 1"),
        ({"patch": 0}, "patch=0 must be at least 1"),
        ({"depths": (2,)}, r"depths=\[2\] must be .* last, which is block 2"),
        ({"depths": (1, 1)}, "ascending"),
    ],
)
def test_bad_options_name_the_field(options, word):
    with pytest.raises(UsageError, match=word):
        a_model(**options)
    with pytest.raises(UsageError, match=r"size"):
        build_pretraining_model("huge")
    with pytest.raises(UsageError, match="num_classes=0 must be at least 1"):
        build_classifier("tiny", 0)


def test_bad_inputs_are_refused():
    model = a_model()
    with pytest.raises(UsageError, match="the clip is"):
        model(torch.zeros(1, 3, 4, 48, 48), some_masks(1))
    with pytest.raises(UsageError, match="the mask is"):
        model(a_clip(1), some_masks(1, tokens=9))
    with pytest.raises(UsageError, match="the mask is"):
        model.encode(a_clip(2), some_masks(1))
    with pytest.raises(UsageError, match="must be bool"):
        model(a_clip(1), some_masks(1).float())
    with pytest.raises(UsageError, match=r"the clip is torch\.uint8, and must be float"):
        model(a_clip(1).byte(), some_masks(1))
    uneven = some_masks()
    uneven[0] = True
    with pytest.raises(UsageError, match="different numbers"):
        count_hidden(uneven)


def test_initial_weights_of_a_classifier_are_videomaes():
    classifier = build_classifier("tiny", 5, frames=4, image_size=32, depth=1, fc_dropout=0.5)
    assert classifier.encoder.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_before_the_head_is_at_work_while_training():
    classifier = build_classifier("tiny", 5, frames=4, image_size=32, depth=1, fc_dropout=0.5)
    assert (classifier(a_clip()) != classifier(a_clip())).any()
    classifier.eval()
    torch.testing.assert_close(classifier(a_clip()), classifier(a_clip()))
