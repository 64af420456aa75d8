import argparse
from types import SimpleNamespace

import pytest
import torch
from official_vit import OfficialClassifier, OfficialPretraining
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from mme_core.encoder import encoder_from
from mme_core.errors import UsageError
from mme_core.model import build_classifier, build_pretraining_model
from mme_core.tokens import interpolate_positions, sinusoid_table
from mme_core.transformer import SIZES
from mme_core.weights.load import build_from, load_weights, read_weights
from mme_core.weights.save import save_weights
from train.convert import convert, main

FRAMES, SIDE = 4, 32
TOKENS = 2 * 2 * 2
CLIP = {"frames": FRAMES, "image_size": SIDE}
ALL_SIZES = [  # size, blocks (None: its own number)
    ("tiny", None),
    ("base", 2),
    pytest.param("small", None, marks=pytest.mark.slow),
    pytest.param("base", None, marks=pytest.mark.slow),
]


def official(size="tiny", classes=7, depth=None):
    torch.manual_seed(0)
    width, full, heads = SIZES[size]
    return OfficialClassifier(width, depth or full, heads, TOKENS, classes).eval()


def clips(count=2, frames=FRAMES, side=SIDE):
    return torch.randn(count, 3, frames, side, side, generator=torch.Generator().manual_seed(1))


def save(path, content):
    torch.save(content, path)
    return path


NESTS = {
    "model": lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=1.0)},
    "module": lambda state: {"module": state, "global_steps": 5},
    "deepspeed in model": lambda state: {"model": {"module": state}},
    "bare": lambda state: state,
    "prefixed": lambda state: {"model": {f"module.{name}": t for name, t in state.items()}},
    "compiled": lambda state: {"model": {f"module._orig_mod.{n}": t for n, t in state.items()}},
}


@pytest.mark.parametrize("nest", NESTS)
@torch.inference_mode()
def test_official_classifier_gives_the_same_logits(tmp_path, nest):
    model = official(depth=2)
    path = save(tmp_path / "official.pth", NESTS[nest](model.state_dict()))
    ours = build_from(read_weights(path, **CLIP))
    torch.testing.assert_close(ours(clips()), model(clips()), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "depth"), ALL_SIZES)
@torch.inference_mode()
def test_converted_file_gives_the_official_logits(tmp_path, size, depth):
    model = official(size, depth=depth)
    path = save(tmp_path / "official.pth", {"model": model.state_dict()})
    convert(path, tmp_path / "out.safetensors", **CLIP)
    ours = build_from(read_weights(tmp_path / "out.safetensors"))
    torch.testing.assert_close(ours(clips()), model(clips()), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_official_pretraining_checkpoint_gives_the_same_tokens(tmp_path, capsys):
    torch.manual_seed(0)
    model = OfficialPretraining(192, 2, 3, TOKENS).eval()
    path = save(tmp_path / "pretrain.pth", {"model": model.state_dict()})
    status = main(
        [str(path), "-o", str(tmp_path / "w.safetensors"), "--frames=4", "--image-size=32"]
    )
    said = capsys.readouterr().out
    assert status == 0
    assert "size tiny, 2 blocks, 4 frames of 32 pixels, no head" in said
    assert "mask_token" in said and "fc_norm, head;" in said  # unexpected, and missing
    encoder = encoder_from(read_weights(tmp_path / "w.safetensors"))
    torch.testing.assert_close(encoder.tokens(clips()), model.encoder(clips()), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_bias_on_the_keys_changes_nothing(tmp_path):
    """The softmax cancels it, so VideoMAE's files need only the biases of q and v."""
    model = build_classifier("tiny", 5, depth=2, **CLIP).eval()
    torch.nn.init.normal_(model.head.weight)
    before = model(clips())
    for block in model.encoder.blocks:
        block.attn.qkv.bias[192:384] = torch.randn(192)
    torch.testing.assert_close(model(clips()), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "depth"), ALL_SIZES)
@torch.inference_mode()
def test_transformers_classifier_gives_the_same_logits(tmp_path, size, depth):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    torch.manual_seed(0)
    width, full, heads = SIZES[size]
    config = VideoMAEConfig(
        image_size=SIDE,
        num_frames=FRAMES,
        hidden_size=width,
        num_hidden_layers=depth or full,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        layer_norm_eps=1e-6,
        id2label={0: "clap", 1: "jump", 2: "wave"},
        attn_implementation="eager",
    )
    model = VideoMAEForVideoClassification(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    weights = read_weights(tmp_path)
    assert weights.class_names == ["clap", "jump", "wave"]
    theirs = model(clips().transpose(1, 2)).logits
    torch.testing.assert_close(build_from(weights)(clips()), theirs, atol=1e-4, rtol=0)


def test_a_transformers_model_of_other_heads_is_refused(tmp_path):
    """The weights would fit, but the logits would be wrong."""
    state = {
        "videomae.embeddings.patch_embeddings.projection.weight": torch.zeros(192, 3, 2, 16, 16)
    }
    save_file(state, tmp_path / "model.safetensors")
    config = tmp_path / "config.json"
    config.write_text('{"hidden_size": 192, "num_attention_heads": 12}')
    with pytest.raises(UsageError, match=r"num_attention_heads=12, but .* width 192 has 3 here"):
        read_weights(tmp_path)
    config.write_text('{"hidden_size": ')
    with pytest.raises(UsageError, match=r"config\.json: not a JSON file"):
        read_weights(tmp_path)


def test_the_configuration_of_another_program_is_no_recipe(tmp_path):
    state = {"model": official(depth=1).state_dict(), "config": {"model": "vit_tiny"}}
    assert read_weights(save(tmp_path / "theirs.pth", state), **CLIP).recipe == {}


def test_the_recipe_of_a_run_is_kept(tmp_path):
    """The recipe says how clips are sampled, and predictions depend on it."""
    recipe = {"data": {"sampling": "segment"}, "model": CLIP}
    state = build_classifier("tiny", 5, depth=1, **CLIP).state_dict()
    save_weights(tmp_path / "a.safetensors", state, **CLIP, recipe=recipe)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_weights(tmp_path / "b.safetensors").recipe == recipe


def test_older_transformers_names_of_the_biases_are_read(tmp_path):
    prefix = "videomae.encoder.layer.0.attention.attention"
    state = {f"{prefix}.{part}.weight": torch.randn(192, 192) for part in ("query", "key", "value")}
    state |= {f"{prefix}.q_bias": torch.ones(192), f"{prefix}.v_bias": torch.full((192,), 2.0)}
    state["videomae.embeddings.patch_embeddings.projection.weight"] = torch.randn(192, 3, 2, 16, 16)
    save_file(state, tmp_path / "old.safetensors")
    bias = read_weights(tmp_path / "old.safetensors").tensors["encoder.blocks.0.attn.qkv.bias"]
    assert bias.split(192)[0].unique() == 1
    assert bias.split(192)[1].unique() == 0
    assert bias.split(192)[2].unique() == 2


def test_own_pretraining_checkpoint_fills_a_classifier(tmp_path):
    model = build_pretraining_model("tiny", depth=2, **CLIP)
    recipe = {"model": {"size": "tiny", **CLIP}}
    path = save(tmp_path / "step.pt", {"model": model.state_dict(), "config": recipe})
    weights = read_weights(path)
    assert (weights.frames, weights.image_size) == (FRAMES, SIDE)
    classifier = build_classifier("tiny", 3, depth=2, **CLIP)
    report = load_weights(classifier, weights, head=False)
    assert report.missing == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]
    assert {"encoder.norm.weight", "encoder.norm.bias"} < set(report.unexpected)
    assert not report.interpolated
    for name, tensor in classifier.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[name])


def test_positions_are_interpolated_for_another_clip(tmp_path):
    weights = read_weights(save(tmp_path / "o.pth", official(depth=1).state_dict()), **CLIP)
    model = build_classifier("tiny", 7, depth=1, frames=8, image_size=64)
    report = load_weights(model, weights)
    assert report.interpolated and "positions interpolated" in str(report)
    table = sinusoid_table(TOKENS, 192).reshape(2, 2, 2, 192).permute(3, 0, 1, 2)
    plane = F.interpolate(table.transpose(0, 1), size=(4, 4), mode="bicubic").transpose(0, 1)
    early, late = plane[:, 0], plane[:, 1]
    # two time steps read at four: centres at −0.25, 0.25, 0.75, 1.25
    want = torch.stack([early, 0.75 * early + 0.25 * late, 0.25 * early + 0.75 * late, late], 1)
    got = model.encoder.pos_embed.reshape(4, 4, 4, 192).permute(3, 0, 1, 2)
    torch.testing.assert_close(got, want)


def test_positions_of_the_same_clip_stay():
    table = sinusoid_table(8, 12)
    assert interpolate_positions(table, (2, 2, 2), (2, 2, 2), "x") is table
    # a file that does not say what clip it is for
    assert interpolate_positions(table, (3, 2, 2), (2, 2, 2), "x") is table
    with pytest.raises(UsageError, match="8 positions, but 3×2×2 tokens were expected"):
        interpolate_positions(table, (3, 2, 2), (4, 2, 2), "x")


def test_weights_of_another_size_are_refused(tmp_path):
    weights = read_weights(save(tmp_path / "o.pth", official(depth=2).state_dict()), **CLIP)
    with pytest.raises(UsageError, match=r"another size.*with size=tiny depth=2 patch=16"):
        load_weights(build_classifier("small", 7, depth=2, **CLIP), weights)
    with pytest.raises(UsageError, match="2 blocks, the model 3"):
        load_weights(build_classifier("tiny", 7, depth=3, **CLIP), weights)
    with pytest.raises(UsageError, match="its head has 7 classes, the data 4"):
        load_weights(build_classifier("tiny", 4, depth=2, **CLIP), weights)


def test_an_encoder_that_got_nothing_is_an_error():
    weights = SimpleNamespace(
        path="x.pth", tensors={"encoder.stem.weight": torch.zeros(7)}, grid=(2, 2, 2), ignored=[]
    )
    with pytest.raises(UsageError, match=r"x\.pth: the encoder got nothing"):
        load_weights(build_classifier("tiny", 7, depth=1, **CLIP), weights)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    state = build_classifier("tiny", 5, depth=1, **CLIP).state_dict()
    save_weights(tmp_path / "a.safetensors", state, **CLIP)
    with pytest.raises(UsageError, match=r"b\.safetensors: cannot be written \(Not a directory\)"):
        convert(tmp_path / "a.safetensors", tmp_path / "a.safetensors" / "c" / "b.safetensors")


def test_output_must_be_safetensors(tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        main(["x.pth", "-o", str(tmp_path / "out.pth")])


def pretraining_file(tmp_path, **options):
    torch.manual_seed(0)
    model = build_pretraining_model("tiny", depth=2, decoder_width=48, **CLIP, **options)
    save_weights(tmp_path / "pre.safetensors", model.state_dict(), **CLIP)
    return model, read_weights(tmp_path / "pre.safetensors")


def test_a_pretraining_model_gets_its_decoders_back(tmp_path):
    model, weights = pretraining_file(tmp_path)
    other = build_pretraining_model("tiny", depth=2, decoder_width=48, **CLIP)
    report = load_weights(other, weights)
    assert not report.missing and not report.unexpected
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize("options", [{"decoder": "separate"}, {"heads": {"pixel": 1536}}])
def test_decoders_that_do_not_fit_are_left_out(tmp_path, options):
    model, weights = pretraining_file(tmp_path)
    other = build_pretraining_model("tiny", depth=2, decoder_width=48, **CLIP, **options)
    before = {n: t.clone() for n, t in other.state_dict().items() if n.startswith("decoders.")}
    report = load_weights(other, weights)
    assert {name.split(".")[0] for name in report.missing + report.unexpected} == {"decoders"}
    state = other.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert torch.equal(state["encoder.norm.weight"], model.state_dict()["encoder.norm.weight"])


def test_other_image_size_keeps_the_decoders(tmp_path):
    _, weights = pretraining_file(tmp_path)
    larger = build_pretraining_model(
        "tiny", depth=2, decoder_width=48, frames=FRAMES, image_size=64
    )
    report = load_weights(larger, weights)
    assert report.interpolated and not report.missing and not report.unexpected
    table = larger.decoders["joint"].pos_embed
    assert torch.equal(table, sinusoid_table(2 * 4 * 4, 48))


def test_a_classifier_file_fills_a_pretraining_encoder(tmp_path):
    state = build_classifier("tiny", 3, depth=2, **CLIP).state_dict()
    save_weights(tmp_path / "c.safetensors", state, **CLIP)
    model = build_pretraining_model("tiny", depth=2, **CLIP)
    report = load_weights(model, read_weights(tmp_path / "c.safetensors"), head=False)
    assert report.missing[:2] == ["encoder.norm.weight", "encoder.norm.bias"]
    weight = model.encoder.blocks[1].attn.qkv.weight
    assert torch.equal(weight, state["encoder.blocks.1.attn.qkv.weight"])


def test_a_converted_run_leaves_its_decoders_out(tmp_path):
    pretraining_file(tmp_path)
    said = convert(tmp_path / "pre.safetensors", tmp_path / "out.safetensors")
    assert said.rpartition("classifier: ")[2].split("; ")[1:] == [
        "left at their initial values: fc_norm, head",
        "in the file but not in the model: encoder.norm, decoders.joint",
    ]
    assert {n.split(".")[0] for n in load_file(tmp_path / "out.safetensors")} == {"encoder"}


@pytest.mark.parametrize(
    "lost", ["encoder.blocks.1.mlp.fc1.weight", "encoder.patch_embed.proj.bias"]
)
def test_an_encoder_that_lacks_a_tensor_is_refused(tmp_path, lost):
    state = build_classifier("tiny", 3, depth=2, **CLIP).state_dict()
    del state[lost]
    weights = read_weights(save(tmp_path / "part.pth", state), **CLIP)
    with pytest.raises(UsageError, match=f"part.pth: not a whole encoder, it lacks {lost}"):
        encoder_from(weights)


@torch.inference_mode()
def test_a_model_without_attention_biases_is_read(tmp_path):
    model = build_classifier("tiny", 3, depth=2, **CLIP)
    state = {n: t for n, t in model.state_dict().items() if not n.endswith("attn.qkv.bias")}
    encoder = encoder_from(read_weights(save(tmp_path / "plain.pth", state), **CLIP))
    torch.testing.assert_close(encoder.tokens(clips()), model.eval().encoder(clips()))


@torch.inference_mode()
def test_mmaction2_gives_the_same_logits(tmp_path):
    model = official(depth=2)
    theirs = {
        "patch_embed.proj": "backbone.patch_embed.projection",
        "mlp.fc1": "mlp.layers.0.0",
        "mlp.fc2": "mlp.layers.1",
        "head": "cls_head.fc_cls",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, other in theirs.items():
            name = name.replace(ours, other)
        state[name if name.startswith(("backbone", "cls_head")) else f"backbone.{name}"] = tensor
    path = save(tmp_path / "mm.pth", {"state_dict": state, "meta": {"epoch": 1}})
    ours = build_from(read_weights(path, **CLIP))
    torch.testing.assert_close(ours(clips()), model(clips()), atol=1e-4, rtol=0)


def test_missing_clip_shape_names_the_commands_option(tmp_path):
    state = official(depth=1).state_dict() | {"pos_embed": torch.zeros(1, TOKENS, 192)}
    path = save(tmp_path / "o.pth", state)
    with pytest.raises(UsageError, match="give --frames=… and --image-size=… of the clip"):
        main([str(path), "-o", str(tmp_path / "w.safetensors")])
