"""Files of weights: damaged ones, unsafe ones and those of other models are named."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mme_core.errors import UsageError
from mme_core.model import build_classifier
from mme_core.weights import names
from mme_core.weights.load import read_weights
from train.convert import convert


class Trap:
    """Unpickling the file would call a function."""

    def __reduce__(self):
        return print, ("code ran",)


def test_unsafe_pickle_is_refused_with_advice(tmp_path, capsys):
    path = tmp_path / "trap.pth"
    torch.save({"model": VIDEO_PATCHES, "x": Trap()}, path)
    with pytest.raises(UsageError, match=r"refused.*weights_only=False") as error:
        read_weights(path)
    assert "code ran" not in capsys.readouterr().out
    assert str(path) in str(error.value)


BROKEN = {
    "missing": (None, "no such file of weights"),
    "no tensors": ({"epoch": 3}, "no tensors in it"),
    "no encoder": ({"model": {"resnet.conv1.weight": torch.zeros(2)}}, "no encoder in it.*resnet"),
    "a list": ([torch.zeros(1)], "a list, not a dictionary"),
    "unknown width": (
        {"patch_embed.proj.weight": torch.zeros(100, 3, 2, 16, 16)},
        "width 100 is none of the model's sizes",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_explained(tmp_path, case):
    content, message = BROKEN[case]
    path = tmp_path / "file.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=message):
        convert(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_garbage_is_not_a_checkpoint(tmp_path):
    for name in ("a.pth", "b.safetensors"):
        for content in (b"hello, this is no checkpoint at all", b"\x80\x02hello", b""):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UsageError, match=name):
                read_weights(tmp_path / name)


def test_a_transformers_folder_in_parts_is_read(tmp_path):
    model = build_classifier("tiny", 3, depth=2, frames=4, image_size=32)
    state = names.to_hf(model.state_dict())
    parts = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(state)}
    for part in set(parts.values()):
        save_file({n: t for n, t in state.items() if parts[n] == part}, tmp_path / part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    weights = read_weights(tmp_path, frames=4, image_size=32)
    assert (weights.depth, weights.num_classes) == (2, 3)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model-1\.safetensors, which is not beside it"):
        read_weights(tmp_path)


VIDEO_PATCHES = {"patch_embed.proj.weight": torch.zeros(192, 3, 2, 16, 16)}


FOREIGN = {
    "MAE-ST": ({**VIDEO_PATCHES, "pos_embed_spatial": torch.zeros(1, 4, 192)}, "MAE-ST.*not read"),
    "V-JEPA": ({"encoder": {}, "predictor": {}, "target_encoder": {}}, "V-JEPA.*not read"),
    "image MAE": ({"patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)}, "a model of images"),
    "ViT-H": ({"patch_embed.proj.weight": torch.zeros(1280, 3, 2, 16, 16)}, r"1280 \(ViT-H\)"),
    "half": (
        {**VIDEO_PATCHES, "blocks.0.attn.q_bias": torch.zeros(192)},
        r"not a whole model, it lacks blocks\.0\.attn\.v_bias|lacks encoder\.blocks\.0",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_models_are_called_by_name(tmp_path, kind):
    content, message = FOREIGN[kind]
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UsageError, match=message):
        convert(tmp_path / "file.pth", tmp_path / "out.safetensors")


def test_name_of_the_hub_comes_with_advice(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="hf download MCG-NJU/videomae-base --local-dir videomae"):
        read_weights("MCG-NJU/videomae-base")
    with pytest.raises(UsageError, match=r"no such file of weights; check the path$"):
        read_weights("runs/w.safetensors")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no such file of weights in runs; check the path$"):
        read_weights("runs/mine")
