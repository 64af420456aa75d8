"""Finds the file of weights for a path, and reads its tensors without running code in it."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mme_core.errors import UsageError
from mme_core.transformer import SIZES
from mme_core.weights.run_folder import checkpoints

MARK = "mme"  # of our safetensors files' metadata; it holds what is known of the weights
_NESTS = ("model", "module", "state_dict")  # VideoMAE and ours, DeepSpeed, Lightning and mmaction2
_PREFIXES = ("module.", "_orig_mod.", "backbone.")  # of wrappers; any number, in any order
_PICKLE = b"\x80"  # first byte of a file in torch's format before 1.6; later ones are zip files
_HF_FILES = ("model.safetensors", "pytorch_model.bin")
_HF_INDEXES = tuple(f"{name}.index.json" for name in _HF_FILES)  # of a model in several files
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find_file(path: Path) -> Path:
    """Returns the file of weights for a path.

    The path may be the file itself, a transformers folder, or a run's folder, whose newest
    checkpoint is returned. Raises UsageError where there is no file.
    """
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{path}: no such file of weights{_hub_advice(path)}")
        return path
    for name in (*_HF_FILES, *_HF_INDEXES):
        if (path / name).exists():
            return path / name
    if written := checkpoints(path):
        return written[0]
    raise UsageError(f"{path}: a folder without {', '.join(_HF_FILES)} or the checkpoints of a run")


def _hub_advice(path: Path) -> str:
    text = str(path)
    if path.suffix in (".pt", ".pth", ".bin", ".safetensors") or not _HUB_NAME.fullmatch(text):
        return "; check the path"
    if path.parent.exists():  # runs/mine, and not the name of an account
        return f" in {path.parent}; check the path"
    return (
        f"; a model of the Hugging Face hub must be fetched first: `hf download {text} "
        f"--local-dir {path.name}`, then name that folder"
    )


def read_file(file: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Returns (top level of the file, its tensors without prefixes of wrappers, metadata).

    The metadata hold `frames`, `image_size`, `class_names` and `recipe` where the file, or the
    config.json beside it, has them. Raises UsageError for files that are unreadable, unsafe to load
    or hold no tensors.
    """
    top, meta = _read(file)
    return top, _strip(_unnest(top, file)), meta | _hf_config(file)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if file.name in _HF_INDEXES:
        merged: dict[str, Any] = {}
        for name in sorted(set(read_json(file).get("weight_map", {}).values())):
            part = file.with_name(Path(name).name)
            if not part.exists():
                raise UsageError(f"{file}: names {part.name}, which is not beside it")
            merged |= _read(part)[0]
        return merged, {}
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    return _unpickle(file), {}


def _read_safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            meta = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{file}: not a safetensors file: {error}") from error
    return state, json.loads(meta.get(MARK, "{}"))


def written_here(file: Path) -> bool:
    """Whether one of our commands wrote this safetensors file."""
    try:
        with safe_open(file, framework="pt") as opened:
            return MARK in (opened.metadata() or {})
    except SafetensorError:
        return False


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
    if "target_encoder" in top:
        raise UsageError(f"{file}: a checkpoint of V-JEPA, whose models are not read")
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
    if file.name not in (*_HF_FILES, *_HF_INDEXES) or not path.exists():
        return {}
    config = read_json(path)
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


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; raises UsageError where it is none."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a {type(values).__name__}, not a JSON object")
    return values
