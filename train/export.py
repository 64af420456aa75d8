"""`mme export`: writes weights for use without this package.

mme export runs/finetune --to videomae-hf -o out/hf       a folder that transformers loads
mme export runs/pretrain --to encoder -o out/encoder      a folder that load_encoder loads
mme export runs/pretrain --to encoder -o encoder.safetensors
mme export runs/finetune --to onnx -o classifier.onnx
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from mme_core.encoder import encoder_from
from mme_core.errors import MMEError, UsageError, named
from mme_core.parser import CommandParser, disk_path
from mme_core.spec import TUBELET
from mme_core.terminal import plain
from mme_core.tokens import sinusoid_table
from mme_core.transformer import SIZES
from mme_core.weights.card import model_card
from mme_core.weights.files import read_json
from mme_core.weights.load import Weights, build_from, read_weights
from mme_core.weights.names import to_hf
from mme_core.weights.run_folder import EVALUATION, METRICS, read_metrics
from mme_core.weights.save import (
    CARD,
    CONFIG,
    MODEL,
    check_replaceable,
    metadata,
    recipe_of_clips,
    save_weights,
    write_json,
    writing,
)
from train.engine.folder import check_suffix

FILES = (".safetensors", ".pt", ".pth", ".bin", ".onnx")  # other names, as enc-v1.0, are folders
ONNX_TOLERANCE = 1e-4  # largest difference of a logit that is accepted


def export_hf(weights: Weights, folder: Path) -> str:
    """config.json, model.safetensors, preprocessor_config.json and README.md, the model card.

    A classifier becomes VideoMAEForVideoClassification, a pre-trained encoder VideoMAEModel. Raises
    UsageError for interpolated positions: transformers makes its own table.
    """
    table = weights.tensors.get("encoder.pos_embed")
    if table is not None and not torch.allclose(table, sinusoid_table(*table.shape[1:]), atol=1e-5):
        raise UsageError(
            f"{weights.path}: its positions were interpolated from another resolution, and "
            "transformers' VideoMAE only knows its own fixed table; use --to encoder or --to onnx"
        )
    config = _hf_config(weights)
    check_replaceable(folder, config["architectures"][0])
    known = {"recipe": recipe_of_clips(weights.recipe)}  # config.json holds the rest
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(to_hf(weights.tensors), folder / MODEL, metadata=metadata(known))
        write_json(folder / CONFIG, config)
        write_json(folder / "preprocessor_config.json", _hf_preprocessor(weights))
        _write_card(weights, "videomae-hf", folder)
    return f"{folder}: {config['architectures'][0]}.from_pretrained('{folder}')"


def export_encoder(weights: Weights, path: Path) -> str:
    """The encoder alone: a folder with its model card, or one file (PATH.safetensors).

    docs/downstream.md shows how to load them.
    """
    if path.suffix not in FILES:
        encoder_from(weights).save_pretrained(path)
        with writing(path):
            _write_card(weights, "encoder", path)
        return f"{path}: load_encoder('{path}')"
    check_suffix(path, ".safetensors")
    kept = ("encoder.", "fc_norm.")
    tensors = {n: t for n, t in weights.tensors.items() if n.startswith(kept)}
    save_weights(
        path,
        tensors,
        frames=weights.frames,
        image_size=weights.image_size,
        recipe=recipe_of_clips(weights.recipe),
    )
    return f"{path}: {len(tensors)} tensors, size {weights.size}"


def export_onnx(weights: Weights, path: Path) -> str:
    """The classifier: `clip` float32 [batch, 3, T, H, W], normalised → `logits` [batch, classes].

    Runs the file in onnxruntime. Where its logits differ from torch's, removes it and raises
    MMEError.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"--to onnx needs {package}: install the extra 'export' where the sources are, pip "
                "install '.[export]', or all of them, make setup"
            )
    import onnxruntime

    model = build_from(weights)
    size = (3, weights.frames, weights.image_size, weights.image_size)
    clip = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            model,
            (clip,),
            path,
            input_names=["clip"],
            output_names=["logits"],
            dynamic_shapes={"clip": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    three = torch.cat([clip, clip[:1]])  # another batch size than the one traced
    (got,) = session.run(None, {"clip": three.numpy()})
    with torch.inference_mode():
        error = (torch.from_numpy(got) - model(three)).abs().max().item()
    if not error < ONNX_TOLERANCE:
        path.unlink()
        raise MMEError(f"{path}: onnxruntime's logits differ from torch's by {error:.2g}")
    return f"{path}: logits equal torch's within {error:.1e}"


TARGETS = {"videomae-hf": export_hf, "encoder": export_encoder, "onnx": export_onnx}


def _hf_config(weights: Weights) -> dict[str, Any]:
    width, _, heads = SIZES[weights.size]
    classifier = weights.num_classes is not None
    names = weights.class_names or [f"LABEL_{i}" for i in range(weights.num_classes or 0)]
    config = {
        "model_type": "videomae",
        "architectures": ["VideoMAEForVideoClassification" if classifier else "VideoMAEModel"],
        "image_size": weights.image_size,
        "patch_size": weights.patch,
        "num_channels": 3,
        "num_frames": weights.frames,
        "tubelet_size": TUBELET,
        "hidden_size": width,
        "num_hidden_layers": weights.depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        # without mean pooling transformers applies the encoder's last norm, as pre-training does
        "use_mean_pooling": classifier,
    }
    if classifier:
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    return config


def _hf_preprocessor(weights: Weights) -> dict[str, Any]:
    side = weights.image_size
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_DEFAULT_MEAN),
        "image_std": list(IMAGENET_DEFAULT_STD),
    }


def _write_card(weights: Weights, format: str, folder: Path) -> None:
    card = model_card(weights, format, folder.resolve().name, _measured(Path(weights.path)))
    (folder / CARD).write_text(card)


def _measured(run: Path) -> dict[str, float]:
    """What a run's folder says about held-out videos; {} for a file of weights."""
    if (run / EVALUATION).exists():
        values, names = read_json(run / EVALUATION), ("top1", "top5", "coverage", "videos")
    elif (run / METRICS).exists():
        evaluated = [row for row in read_metrics(run) if "val_loss" in row]
        values, names = (evaluated or [{}])[-1], ("step", "val_loss", "constant_loss", "knn")
    else:
        return {}
    return {name: values[name] for name in names if name in values}


def main(argv: list[str]) -> int:
    parser = CommandParser("export", __doc__)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path, help="a run's folder, or a file of weights")
    format_help = f"format: {', '.join(TARGETS)}"
    add("--to", choices=TARGETS, metavar="FORMAT", required=True, help=format_help)
    output_help = "folder; for encoder also a file, for onnx a file"
    add("-o", "--output", metavar="FILE", type=disk_path, required=True, help=output_help)
    frames_help = "frames of a clip, if the file does not say"
    add("--frames", type=int, default=16, metavar="N", help=frames_help)
    size_help = "side of the image in pixels, if the file does not say"
    add("--image-size", type=int, default=224, metavar="N", help=size_help)
    arguments = parser.parse_args(argv)
    with named(frames="--frames", image_size="--image-size"):
        weights = read_weights(arguments.weights, arguments.frames, arguments.image_size)
        print(plain(TARGETS[arguments.to](weights, arguments.output)))
    return 0
