"""Weights in: read any known checkpoint, and load it into a model of perhaps another resolution."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from mme_core.errors import UsageError
from mme_core.model import SIZES, Classifier, build_classifier, sinusoid_table
from mme_core.spec import TUBELET
from mme_core.weights import names
from mme_core.weights.run_folder import checkpoints

_NESTS = ("model", "module", "state_dict")  # VideoMAE and ours, DeepSpeed, Lightning
_PREFIXES = ("module.", "_orig_mod.", "backbone.")  # of wrappers; any number, in any order
_PICKLE = b"\x80"  # first byte of a file in torch's format before 1.6; later ones are zip files
_HF_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """Weights under the names of `mme_core.model`, and what is known of their origin.

    frames, image_size   the clip they were made for, where positions are not in the file (official
                         checkpoints: 16 frames of 224 pixels)
    ignored              names in the file that neither encoder nor classifier has
    class_names          of the head, where known
    recipe               the run's configuration, where one of our runs wrote the file, else {}
    """

    path: str
    tensors: dict[str, Tensor]
    frames: int
    image_size: int
    ignored: list[str]
    class_names: list[str] | None
    recipe: dict[str, Any]

    @property
    def patch(self) -> int:
        return self.tensors["encoder.patch_embed.proj.weight"].shape[-1]

    @property
    def depth(self) -> int:
        return len({name.split(".")[2] for name in self.tensors if ".blocks." in name})

    @property
    def size(self) -> str:
        """The name among SIZES; the depth may differ. Raises UsageError for an unknown width."""
        width = self.tensors["encoder.patch_embed.proj.weight"].shape[0]
        for name, (w, _, _) in SIZES.items():
            if w == width:
                return name
        known = ", ".join(f"{name} {w}" for name, (w, _, _) in SIZES.items())
        raise UsageError(f"{self.path}: width {width} is none of the model's sizes ({known})")

    @property
    def num_classes(self) -> int | None:
        head = self.tensors.get("head.weight")
        return None if head is None else len(head)

    @property
    def grid(self) -> tuple[int, int, int]:
        side = self.image_size // self.patch
        return self.frames // TUBELET, side, side


@dataclass(frozen=True)
class LoadReport:
    """What a model got: names of the model without a tensor, of the file without a place."""

    loaded: int
    missing: list[str]
    unexpected: list[str]
    interpolated: bool

    def __str__(self) -> str:
        text = f"{self.loaded} tensors"
        if self.interpolated:
            text += ", positions interpolated"
        if self.missing:
            text += f"; left at their initial values: {_shorten(self.missing)}"
        if self.unexpected:
            text += f"; in the file but not in the model: {_shorten(self.unexpected)}"
        return text


def read_weights(path: str | Path, frames: int = 16, image_size: int = 224) -> Weights:
    """Reads our files and runs' folders, VideoMAE's and MME's checkpoints, transformers' folders.

    frames and image_size tell what clip the weights are for where the file does not. Raises
    UsageError for files that are missing, unreadable, unsafe to load or hold no encoder.
    """
    path = Path(path)
    file = _weight_file(path)
    top, meta = _read_safetensors(file) if file.suffix == ".safetensors" else (_unpickle(file), {})
    meta |= _hf_config(file)
    state = _strip(_unnest(top, file))
    convert = names.from_hf if names.is_hf(state) else names.from_videomae
    tensors, ignored = convert(state)
    if not any(name.startswith("encoder.patch_embed.") for name in tensors):
        raise UsageError(
            f"{path}: no encoder in it (no patch embedding under any known name); its first names "
            f"are {_shorten(list(state))}"
        )
    recipe = meta.get("recipe") or {}
    config = top.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("model"), Mapping):
        recipe = config  # of our checkpoints; another program's looks otherwise
    made_for = {"frames": frames, "image_size": image_size, **recipe.get("model", {}), **meta}
    return Weights(
        path=str(path),
        tensors={name: tensor.float() for name, tensor in tensors.items()},
        frames=int(made_for["frames"]),
        image_size=int(made_for["image_size"]),
        ignored=ignored,
        class_names=meta.get("class_names") or top.get("class_names"),
        recipe=recipe,
    )


def load_weights(model: nn.Module, weights: Weights, *, head: bool = True) -> LoadReport:
    """Copies what fits by name; positions are interpolated where the model's clip differs.

    head: take the classification head as well; a head of another class count is then an error.
    Raises UsageError for weights of another size, and when the encoder got nothing.
    """
    own = model.state_dict()
    tensors = {n: t for n, t in weights.tensors.items() if head or not n.startswith("head.")}
    interpolated = False
    if "encoder.pos_embed" in own:
        table = tensors.get("encoder.pos_embed")
        if table is None:
            n, h, w = weights.grid
            table = sinusoid_table(n * h * w, own["encoder.pos_embed"].shape[-1])
        moved = interpolate_positions(table, weights.grid, model.encoder.grid, weights.path)
        interpolated = moved is not table
        tensors["encoder.pos_embed"] = moved
    shared = {name: tensor for name, tensor in tensors.items() if name in own}
    missing = [name for name in own if name not in shared]
    unexpected = [name for name in tensors if name not in own] + weights.ignored
    if not any(n.startswith("encoder.") and n != "encoder.pos_embed" for n in shared):
        raise UsageError(
            f"{weights.path}: the encoder got nothing from it; its names begin with "
            f"{_shorten(unexpected)}, the model's with {_shorten(missing)}"
        )
    _check_shapes(shared, own, weights)
    model.load_state_dict(shared, strict=False)
    return LoadReport(len(shared), missing, unexpected, interpolated)


def build_from(weights: Weights) -> Classifier:
    """The classifier that a fine-tuned file holds. Raises UsageError where it has no head."""
    if weights.num_classes is None:
        raise UsageError(
            f"{weights.path} has no classification head: it is a pre-trained encoder, to be "
            "fine-tuned first"
        )
    model = build_classifier(weights.size, weights.num_classes, **clip_arguments(weights))
    report = load_weights(model, weights)
    if report.missing:
        raise UsageError(
            f"{weights.path}: not a whole classifier of this kind, it lacks "
            f"{_shorten(report.missing)}; fine-tune it first"
        )
    return model.eval()


def clip_arguments(weights: Weights) -> dict[str, int]:
    """What a builder of `mme_core.model` needs beside the size."""
    return {
        "frames": weights.frames,
        "image_size": weights.image_size,
        "patch": weights.patch,
        "depth": weights.depth,
    }


def interpolate_positions(
    table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int], path: str
) -> Tensor:
    """Positions [1, n·h·w, width] of the grid `old` for the grid `new`; the same table if equal.

    Bicubic in space, linear in time.
    """
    n, h, w = old
    if table.shape[1] != n * h * w:
        raise UsageError(
            f"{path}: {table.shape[1]} positions, but {n}×{h}×{w} tokens were expected; give "
            "frames=… and image_size=… of the clip that the weights were made for"
        )
    if old == new:
        return table
    width = table.shape[-1]
    field = table.reshape(n, h, w, width).permute(0, 3, 1, 2)
    if (h, w) != new[1:]:
        field = F.interpolate(field, size=new[1:], mode="bicubic", align_corners=False)
    if n != new[0]:
        line = field.permute(2, 3, 1, 0).flatten(0, 1)  # [h·w, width, n]
        line = F.interpolate(line, size=new[0], mode="linear", align_corners=False)
        field = line.reshape(*new[1:], width, new[0]).permute(3, 2, 0, 1)
    return field.permute(0, 2, 3, 1).reshape(1, -1, width).contiguous()


def _check_shapes(
    shared: Mapping[str, Tensor], own: Mapping[str, Tensor], weights: Weights
) -> None:
    for name, tensor in shared.items():
        if tensor.shape == own[name].shape:
            continue
        if name.startswith("head."):
            raise UsageError(
                f"{weights.path}: its head has {len(tensor)} classes, the data {len(own[name])}"
            )
        raise UsageError(
            f"{weights.path}: weights of another size: {name} is {list(tensor.shape)} there and "
            f"{list(own[name].shape)} in the model; build it with size={weights.size} "
            f"patch={weights.patch}"
        )
    if (blocks := _blocks(own)) != weights.depth:
        raise UsageError(
            f"{weights.path}: weights of another size: {weights.depth} blocks, the model {blocks}; "
            f"build it with depth={weights.depth}"
        )


def _blocks(state: Mapping[str, Tensor]) -> int:
    return len({n.split(".")[2] for n in state if n.startswith("encoder.blocks.")})


def _weight_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{path}: no such file of weights")
        return path
    for name in _HF_FILES:
        if (path / name).exists():
            return path / name
    if written := checkpoints(path):
        return written[0]
    raise UsageError(f"{path}: a folder without {', '.join(_HF_FILES)} or the checkpoints of a run")


def _read_safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            meta = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{file}: not a safetensors file: {error}") from error
    return state, json.loads(meta.get("mme", "{}"))


def _unpickle(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        old_format = opened.read(1) == _PICKLE
    if not old_format and not zipfile.is_zipfile(file):
        raise UsageError(f"{file}: not a checkpoint, or cut off while it was copied")
    try:
        # VideoMAE stores its command line beside the weights; a Namespace holds data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            top = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{file}: refused, it holds Python objects that could run code when loaded. If you "
            "trust its source, keep only its tensors and try again with the result:\n  python -c "
            f"\"import torch; c = torch.load('{file}', map_location='cpu', weights_only=False); "
            "torch.save({'model': c.get('model', c.get('module', c))}, 'tensors.pth')\""
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{file}: not a checkpoint: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(top, Mapping):
        raise UsageError(f"{file}: a {type(top).__name__}, not a dictionary of tensors")
    return dict(top)


def _unnest(top: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    state: Any = top
    while nest := next((k for k in _NESTS if isinstance(state.get(k), Mapping)), None):
        state = state[nest]
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UsageError(f"{file}: no tensors in it, under {', '.join(_NESTS)} or at its top")
    return tensors


def _strip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def bare(name: str) -> str:
        while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
            name = name.removeprefix(prefix)
        return name

    return {bare(name): tensor for name, tensor in state.items()}


def _hf_config(file: Path) -> dict[str, Any]:
    """frames, image_size and class names from the config.json of a transformers folder."""
    path = file.with_name("config.json")
    if file.name not in _HF_FILES or not path.exists():
        return {}
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path}: not a JSON file: {error}") from error
    width, heads = config.get("hidden_size", 768), config.get("num_attention_heads", 12)
    ours = {w: h for w, _, h in SIZES.values()}.get(width, heads)
    if heads != ours:
        raise UsageError(
            f"{path}: num_attention_heads={heads}, but the model of width {width} has {ours} here"
        )
    names = config.get("id2label") or {}
    return {
        "frames": config.get("num_frames", 16),
        "image_size": config.get("image_size", 224),
        "class_names": [names[key] for key in sorted(names, key=int)],
    }


def _shorten(names: list[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
