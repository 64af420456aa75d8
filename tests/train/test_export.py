import json
import subprocess
import sys
import sysconfig
import venv

import pytest
import torch
from safetensors.torch import load_file, save_file

from mme_core import load_encoder
from mme_core.errors import MMEError, UsageError
from mme_core.model import build_classifier, build_pretraining_model
from mme_core.transformer import Encoder
from mme_core.weights.load import load_weights, read_weights
from mme_core.weights.save import save_weights
from train import export
from train.export import main

FRAMES, SIDE = 4, 32
CLIP = {"frames": FRAMES, "image_size": SIDE}
NAMES = ["clap", "jump", "wave"]


def clips():
    return torch.randn(2, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def classifier(tmp_path):
    """(file, model) with every parameter random, the bias of the keys too."""
    torch.manual_seed(0)
    model = build_classifier("tiny", 3, depth=2, **CLIP).eval()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    path = tmp_path / "classifier.safetensors"
    save_weights(path, model.state_dict(), **CLIP, class_names=NAMES)
    return path, model


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(0)
    model = build_pretraining_model("tiny", depth=2, **CLIP).eval()
    path = tmp_path / "step.pt"
    torch.save({"model": model.state_dict(), "config": {"model": CLIP}}, path)
    return path, model


@torch.inference_mode()
def test_transformers_loads_a_classifier(classifier, tmp_path, capsys):
    from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor

    path, model = classifier
    assert main([str(path), "--to", "videomae-hf", "-o", str(tmp_path / "hf")]) == 0
    assert "VideoMAEForVideoClassification" in capsys.readouterr().out
    theirs, about = VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not about["missing_keys"]
    assert all(name.endswith("bias") for name in about["unexpected_keys"])  # of other versions
    assert [theirs.config.id2label[i] for i in range(3)] == NAMES
    logits = theirs.eval()(clips().transpose(1, 2)).logits
    torch.testing.assert_close(logits, model(clips()), atol=1e-4, rtol=0)
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path / "hf")
    assert processor.size["shortest_edge"] == processor.crop_size["height"] == SIDE


@torch.inference_mode()
def test_transformers_loads_a_pretrained_encoder(pretrained, tmp_path):
    from transformers import VideoMAEModel

    path, model = pretrained
    assert main([str(path), "--to", "videomae-hf", "-o", str(tmp_path / "hf")]) == 0
    theirs, about = VideoMAEModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not about["missing_keys"]
    assert all(name.endswith("bias") for name in about["unexpected_keys"])
    tokens = theirs.eval()(clips().transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(tokens, model.encode(clips()), atol=1e-4, rtol=0)


def test_attention_biases_stand_under_both_names(classifier, tmp_path):
    from safetensors.torch import load_file

    path, model = classifier
    main([str(path), "--to", "videomae-hf", "-o", str(tmp_path / "hf")])
    state = load_file(tmp_path / "hf" / "model.safetensors")
    prefix = "videomae.encoder.layer.1.attention.attention"
    q, k, v = model.encoder.blocks[1].attn.qkv.bias.chunk(3)
    for name, bias in {
        "q_bias": q,
        "query.bias": q,
        "key.bias": k,
        "v_bias": v,
        "value.bias": v,
    }.items():
        assert torch.equal(state[f"{prefix}.{name}"], bias), name


READ_LOGITS = """
import sys, torch
from transformers import VideoMAEForVideoClassification
model = VideoMAEForVideoClassification.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4.57.1", "5.3.0", "5.9.0", "5.12.0", "5.18.0"])
@torch.inference_mode()
def test_every_version_of_transformers_gives_the_logits(classifier, tmp_path, version):
    """In a clean environment, which takes torch alone from this one; needs a package index."""
    path, model = classifier
    main([str(path), "--to", "videomae-hf", "-o", str(tmp_path / "hf")])
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"transformers=={version}"], check=True)
    number = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "venv" / "lib" / number / "site-packages"
    (site / "zz.pth").write_text(sysconfig.get_path("purelib"))  # read after the venv's own
    torch.save(clips().transpose(1, 2), tmp_path / "clip.pt")
    files = [str(tmp_path / name) for name in ("hf", "clip.pt", "logits.pt")]
    subprocess.run([python, "-P", "-c", READ_LOGITS, *files], check=True)
    logits = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(logits, model(clips()), atol=4e-5, rtol=0)


@torch.inference_mode()
def test_what_was_exported_comes_back_the_same(classifier, tmp_path):
    path, model = classifier
    main([str(path), "--to", "videomae-hf", "-o", str(tmp_path / "hf")])
    back = build_classifier("tiny", 3, depth=2, **CLIP).eval()
    weights = read_weights(tmp_path / "hf")
    assert weights.class_names == NAMES
    load_weights(back, weights)
    torch.testing.assert_close(back(clips()), model(clips()), atol=1e-5, rtol=0)


def test_interpolated_positions_do_not_go_to_transformers(classifier, tmp_path):
    path, _ = classifier
    larger = build_classifier("tiny", 3, depth=2, frames=FRAMES, image_size=64)
    load_weights(larger, read_weights(path))
    other = tmp_path / "larger.safetensors"
    save_weights(other, larger.state_dict(), frames=FRAMES, image_size=64)
    with pytest.raises(UsageError, match=r"interpolated from another resolution.*--to encoder"):
        main([str(other), "--to", "videomae-hf", "-o", str(tmp_path / "hf")])


@torch.inference_mode()
def test_an_encoder_file_loads_as_documented(pretrained, tmp_path):
    from safetensors.torch import load_file

    path, model = pretrained
    target = tmp_path / "encoder.safetensors"
    assert main([str(path), "--to", "encoder", "-o", str(target)]) == 0
    encoder = Encoder("tiny", frames=FRAMES, image_size=SIDE, patch=16, depth=2).eval()
    tensors = {name.removeprefix("encoder."): t for name, t in load_file(target).items()}
    encoder.load_state_dict(tensors)
    assert torch.equal(encoder(clips()), model.encode(clips()))


@torch.inference_mode()
def test_the_file_of_a_fine_tuned_encoder_keeps_its_norm(classifier, tmp_path):
    path, _ = classifier
    whole, target = load_encoder(path), tmp_path / "encoder.safetensors"
    assert main([str(path), "--to", "encoder", "-o", str(target)]) == 0
    alone = load_encoder(target)
    assert torch.equal(alone.pool(alone.tokens(clips())), whole.pool(whole.tokens(clips())))


def test_a_fine_tuned_encoder_without_its_norm_is_refused(classifier, tmp_path):
    _, model = classifier
    tensors = {n: t for n, t in model.state_dict().items() if n.startswith("encoder.")}
    save_weights(tmp_path / "encoder.safetensors", tensors, **CLIP)
    with pytest.raises(UsageError, match=r"lacks fc_norm.*export it again"):
        load_encoder(tmp_path / "encoder.safetensors")


def test_onnx_gives_the_logits_of_torch(classifier, tmp_path):
    import onnxruntime

    path, model = classifier
    target = tmp_path / "classifier.onnx"
    assert main([str(path), "--to", "onnx", "-o", str(target)]) == 0
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        clip = clips()[:1].expand(count, -1, -1, -1, -1).contiguous()
        (logits,) = session.run(["logits"], {"clip": clip.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(logits), model(clip), atol=1e-4, rtol=0)


def test_no_onnx_file_of_other_logits_is_left(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ONNX_TOLERANCE", 0.0)
    with pytest.raises(MMEError, match="logits differ from torch's by"):
        main([str(classifier[0]), "--to", "onnx", "-o", str(tmp_path / "x.onnx")])
    assert not (tmp_path / "x.onnx").exists()


def test_an_encoder_has_no_onnx_classifier(pretrained, tmp_path):
    with pytest.raises(UsageError, match="no classification head"):
        main([str(pretrained[0]), "--to", "onnx", "-o", str(tmp_path / "x.onnx")])


def test_preprocessing_is_written_for_transformers(classifier, tmp_path):
    main([str(classifier[0]), "--to", "videomae-hf", "-o", str(tmp_path / "hf")])
    values = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert values["image_mean"] == [0.485, 0.456, 0.406]
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["num_frames"], config["image_size"], config["layer_norm_eps"]) == (4, 32, 1e-6)


def test_a_run_is_not_overwritten(classifier, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"weights of a run")
    with pytest.raises(UsageError, match="is another model and would be lost"):
        main([str(classifier[0]), "--to", "videomae-hf", "-o", str(run)])
    assert (run / "model.safetensors").read_bytes() == b"weights of a run"


def test_no_model_is_written_into_a_store(pretrained, demo_store):
    with pytest.raises(UsageError, match=f"^-o {demo_store}/hub lies in the store"):
        main([str(pretrained[0]), "--to", "encoder", "-o", f"{demo_store}/hub"])
    assert not (demo_store / "hub").exists()


def test_a_model_of_another_kind_is_not_overwritten(classifier, pretrained, tmp_path):
    """A folder from the hub has a config.json too."""
    hf = tmp_path / "hf"
    main([str(classifier[0]), "--to", "videomae-hf", "-o", str(hf)])
    before = (hf / "model.safetensors").read_bytes()
    for weights, to in ((classifier[0], "encoder"), (pretrained[0], "videomae-hf")):
        with pytest.raises(UsageError, match="is another model and would be lost"):
            main([str(weights), "--to", to, "-o", str(hf)])
    assert (hf / "model.safetensors").read_bytes() == before
    main([str(classifier[0]), "--to", "videomae-hf", "-o", str(hf)])  # its own is replaced
    save_file(load_file(hf / "model.safetensors"), hf / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="is another model and would be lost"):
        main([str(classifier[0]), "--to", "videomae-hf", "-o", str(hf)])


@pytest.mark.parametrize("name", ["hf", "enc-v1.0", "enc.safetensors"])
def test_frame_stride_and_sampling_go_with_exported_weights(pretrained, tmp_path, name):
    saved = torch.load(pretrained[0], weights_only=True)
    saved["config"] |= {"data": {"stride": 3, "root": "/home/someone"}}
    torch.save(saved, pretrained[0])
    out = tmp_path / name
    main([str(pretrained[0]), "--to", "videomae-hf" if name == "hf" else "encoder", "-o", str(out)])
    assert read_weights(out).recipe == {"data": {"stride": 3}}
    load_encoder(out).save_pretrained(tmp_path / "again")
    assert read_weights(tmp_path / "again").recipe == {"data": {"stride": 3}}


@pytest.mark.parametrize("to", ["videomae-hf", "encoder"])
def test_a_place_that_cannot_be_written_is_named(classifier, tmp_path, to):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file.*: cannot be written"):
        main([str(classifier[0]), "--to", to, "-o", str(tmp_path / "file" / "e.safetensors")])


def test_an_encoder_folder_loads_and_has_a_model_card(tmp_path):
    model = build_pretraining_model("tiny", depth=2, **CLIP)
    run = tmp_path / "run"
    recipe = {
        "model": CLIP,
        "store": ["/home/someone/stores/mine", "/home/someone/stores/more"],
        "loss": {"contents": ["trajectory"]},
        "optim": {"steps": 400, "epochs": 800},
    }
    (run / "checkpoints").mkdir(parents=True)
    state = {"model": model.state_dict(), "config": recipe}
    torch.save(state, run / "checkpoints" / "step-00000400.pt")
    rows = [{"step": 400, "val_loss": 1.5, "constant_loss": 2.0}, {"step": 400, "loss": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = tmp_path / "mine"
    assert main([str(run), "--to", "encoder", "-o", str(target)]) == 0
    frames = torch.zeros(5, 40, 40, 3, dtype=torch.uint8)
    assert torch.equal(load_encoder(target).features(frames), load_encoder(run).features(frames))
    card = (target / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mme\n")
    for row in ("| store | mine, more |", "| steps | 400 |", "| val_loss | 1.5 |"):
        assert row in card
    assert "someone" not in card and "epochs" not in card


def test_the_card_of_a_classifier_lists_its_classes(classifier, tmp_path):
    assert main([str(classifier[0]), "--to", "videomae-hf", "-o", str(tmp_path / "hf")]) == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "pipeline_tag: video-classification" in card and "clap, jump, wave" in card
    assert 'VideoMAEForVideoClassification.from_pretrained("hf")' in card
    assert "`processor` does this itself" in card


def test_an_encoder_file_is_called_by_its_format(classifier, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        main([str(classifier[0]), "--to", "encoder", "-o", str(tmp_path / "e.pth")])
