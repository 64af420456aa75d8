"""A trained encoder as a source of features, from any file of weights and for any video."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mme_core import load_encoder
from mme_core.clips.views import centre_crop, to_model_input
from mme_core.encoder import VideoEncoder, random_encoder
from mme_core.errors import UsageError
from mme_core.model import build_classifier, build_pretraining_model
from mme_core.weights.save import save_weights

FRAMES, SIDE, WIDTH = 4, 32, 192
CLIP = {"frames": FRAMES, "image_size": SIDE}


def video(frames=FRAMES, height=SIDE, width=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.fixture
def pretrained():
    torch.manual_seed(0)
    return build_pretraining_model("tiny", depth=2, **CLIP).eval()


@pytest.fixture
def encoder(pretrained, tmp_path):
    save_weights(tmp_path / "w.safetensors", pretrained.state_dict(), **CLIP)
    return load_encoder(tmp_path / "w.safetensors")


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (100, 40), (7, 9)])
@pytest.mark.parametrize("frames", [1, 3, 4, 25])
def test_videos_of_any_size_and_length_give_a_feature(encoder, size, frames):
    feature = encoder.features(video(frames, *size))
    assert feature.shape == (WIDTH,) and feature.dtype == torch.float32
    assert feature.isfinite().all()


@torch.inference_mode()
def test_a_feature_is_the_mean_token_of_the_middle_crop(encoder, pretrained):
    frames = video(16, 48, 80)
    chosen = frames[[2, 6, 10, 14]]  # the middles of four equal parts
    clip = to_model_input(torch.from_numpy(centre_crop(chosen, SIDE))[None])
    expected = pretrained.encode(clip).mean(1)[0]
    torch.testing.assert_close(encoder.features(frames), expected, rtol=0, atol=0)


def test_a_batch_gives_the_features_of_its_videos(encoder):
    videos = np.stack([video(9, 40, 50, seed) for seed in range(3)])
    together = encoder.features(torch.from_numpy(videos))
    assert together.shape == (3, WIDTH)
    for one, frames in zip(together, videos):
        torch.testing.assert_close(one, encoder.features(frames), atol=1e-5, rtol=0)


def test_frames_with_reversed_channels_are_taken(encoder):
    frames = video(9, 40, 50, 0)
    reversed_view = np.ascontiguousarray(frames[..., ::-1])[..., ::-1]
    assert torch.equal(encoder.features(reversed_view), encoder.features(frames))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 32, 32, 3), np.float32), r"torch.float32 \[4, 32, 32, 3\]; they must be"),
        (np.zeros((32, 32, 3), np.uint8), "must be uint8"),
        (np.zeros((4, 3, 32, 32), np.uint8), "must be uint8"),
        (np.zeros((0, 32, 32, 3), np.uint8), "frames are empty"),
    ],
)
def test_wrong_frames_are_refused(encoder, frames, message):
    with pytest.raises(UsageError, match=message):
        encoder.features(frames)


def test_a_runs_folder_and_a_file_give_the_same(encoder, pretrained, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    state = {"model": pretrained.state_dict(), "config": {"model": CLIP}}
    torch.save(state, folder / "step-00000007.pt")
    there = load_encoder(tmp_path / "run")
    assert torch.equal(there.features(video()), encoder.features(video()))
    assert not there.training and there.width == WIDTH


@torch.inference_mode()
def test_a_classifiers_features_are_those_before_its_head(tmp_path):
    torch.manual_seed(0)
    model = build_classifier("tiny", 3, depth=2, **CLIP).eval()
    torch.nn.init.normal_(model.fc_norm.weight)
    save_weights(tmp_path / "c.safetensors", model.state_dict(), **CLIP)
    assert "head.weight" in load_file(tmp_path / "c.safetensors")
    clip = to_model_input(torch.from_numpy(video())[None])
    feature = load_encoder(tmp_path / "c.safetensors").features(video())
    torch.testing.assert_close(feature, model.features(clip)[0], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["pretrained", "classifier"])
def test_a_saved_folder_gives_the_same_features(kind, pretrained, tmp_path):
    model = pretrained
    if kind == "classifier":
        model = build_classifier("tiny", 3, depth=2, **CLIP).eval()
        torch.nn.init.normal_(model.fc_norm.weight)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), **CLIP)
    encoder = load_encoder(tmp_path / "w.safetensors")
    encoder.save_pretrained(tmp_path / "folder")
    again = VideoEncoder.from_pretrained(tmp_path / "folder")
    assert torch.equal(again.features(video(9)), encoder.features(video(9)))
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["num_frames"] == FRAMES and config["num_hidden_layers"] == 2
    assert config["num_attention_heads"] == 3 and config["hidden_size"] == WIDTH


def test_saving_does_not_replace_other_weights(encoder, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="would be lost"):
        encoder.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"mine"


def test_a_path_without_weights_is_named(tmp_path):
    with pytest.raises(UsageError, match="no such file of weights"):
        load_encoder(tmp_path / "nothing.safetensors")


def test_random_encoder_leaves_the_callers_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    random_encoder(0, "tiny", patch=16, depth=1, **CLIP)
    assert torch.equal(torch.rand(3), expected)


def test_random_encoders_follow_their_seed():
    one, same, other = (
        random_encoder(seed, "tiny", patch=16, depth=1, **CLIP).features(video())
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
