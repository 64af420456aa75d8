"""Translates the names of weights between three families of files. Pure functions on state dicts.

`mme`       mme_core.model: encoder.*, decoders.*, fc_norm.*, head.*; one bias for q, k and v
`videomae`  checkpoints of VideoMAE, of MME's authors and of mmaction2: q_bias and v_bias, and no
            bias of k
`hf`        VideoMAE in transformers: separate q, k and v

A bias of k adds the same number to all scores of a query, so the softmax cancels it. It is zero
when such a file is read, and left out when one is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]

# parts of a block: our name, and the name in transformers
_HF_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_HF_REST = {
    "encoder.patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "encoder.norm": "videomae.layernorm",
    "fc_norm": "fc_norm",
    "head": "classifier",
}
_OURS = ("encoder.", "decoders.", "fc_norm.", "head.")
# parts of names in mmaction2's VideoMAE, and what they are in VideoMAE's own files
_MMACTION2 = {
    "patch_embed.projection.": "patch_embed.proj.",
    ".mlp.layers.0.0.": ".mlp.fc1.",
    ".mlp.layers.1.": ".mlp.fc2.",
    "cls_head.fc_cls.": "head.",
}
_OFFICIAL_ENCODER = ("patch_embed.", "blocks.", "norm.", "pos_embed")


def is_hf(names: Mapping[str, Tensor]) -> bool:
    return any("embeddings.patch_embeddings.projection" in name for name in names)


def from_videomae(state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """Returns the weights with our names, and the names that our model lacks, such as a decoder's.

    Also takes our own files. Raises KeyError with the name of a missing tensor.
    """
    renamed: State = {}
    ignored: list[str] = []
    for name, tensor in state.items():
        for theirs, ours in _MMACTION2.items():
            name = name.replace(theirs, ours)
        if name.startswith(_OURS):
            renamed[name] = tensor
        elif name.startswith(_OFFICIAL_ENCODER):
            renamed[f"encoder.{name}"] = tensor
        else:
            ignored.append(name)
    for name in [n for n in renamed if n.endswith(".attn.q_bias")]:
        block = name.removesuffix("q_bias")
        q, v = renamed.pop(name), renamed.pop(f"{block}v_bias")
        renamed[f"{block}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return renamed, ignored


def from_hf(state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """Returns the weights with our names, and the names that our model lacks.

    Takes the weights of any VideoMAE model of transformers. Raises KeyError with the name of a
    missing tensor.
    """
    names = {theirs: ours for ours, theirs in _HF_REST.items()}
    parts = {theirs: ours for ours, theirs in _HF_BLOCK.items()}
    renamed: State = {}
    ignored: list[str] = []
    attention: dict[int, State] = {}
    for name, tensor in state.items():
        full = (
            name if name.startswith(("videomae.", "fc_norm", "classifier")) else f"videomae.{name}"
        )
        module, _, leaf = full.rpartition(".")
        block = re.fullmatch(r"videomae\.encoder\.layer\.(\d+)\.(.+)", module)
        if module in names:
            renamed[f"{names[module]}.{leaf}"] = tensor
        elif block and block[2] in parts:
            renamed[f"encoder.blocks.{block[1]}.{parts[block[2]]}.{leaf}"] = tensor
        elif block and block[2].startswith("attention.attention"):
            attention.setdefault(int(block[1]), {})[_attention_name(full)] = tensor
        else:
            ignored.append(name)
    for number, parts_of_qkv in attention.items():
        prefix = f"encoder.blocks.{number}.attn.qkv"
        weights = [parts_of_qkv[f"{part}.weight"] for part in ("query", "key", "value")]
        zero = torch.zeros(len(weights[0]), dtype=weights[0].dtype)
        biases = [parts_of_qkv.get(f"{part}.bias", zero) for part in ("query", "key", "value")]
        renamed[f"{prefix}.weight"], renamed[f"{prefix}.bias"] = (
            torch.cat(weights),
            torch.cat(biases),
        )
    return renamed, ignored


def to_hf(state: Mapping[str, Tensor]) -> State:
    """Returns the weights of VideoMAEForVideoClassification, or of VideoMAEModel without a head.

    The biases of the attention have both of the names that transformers has used: q_bias and v_bias
    (up to 5.5, and from 5.15 on), query.bias, key.bias and value.bias (5.6 to 5.14). Each version
    reads the names that it knows and ignores the others.
    """
    classifier = "head.weight" in state
    renamed = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"encoder\.blocks\.(\d+)\.(.+)", module)
        if module in _HF_REST:
            renamed[f"{_HF_REST[module]}.{leaf}"] = tensor
        elif block and block[2] in _HF_BLOCK:
            renamed[f"videomae.encoder.layer.{block[1]}.{_HF_BLOCK[block[2]]}.{leaf}"] = tensor
        elif block:
            prefix = f"videomae.encoder.layer.{block[1]}.attention.attention"
            q, k, v = tensor.chunk(3)
            for part, value in zip(("query", "key", "value"), (q, k, v)):
                renamed[f"{prefix}.{part}.{leaf}"] = value
            if leaf == "bias":
                renamed[f"{prefix}.q_bias"], renamed[f"{prefix}.v_bias"] = q, v
    if not classifier:
        renamed = {name.removeprefix("videomae."): tensor for name, tensor in renamed.items()}
    # safetensors refuses two names for one memory
    return {name: tensor.clone().contiguous() for name, tensor in renamed.items()}


def _attention_name(name: str) -> str:
    """Returns `query.weight` and so on. Older q_bias and v_bias become query.bias, value.bias."""
    tail = name.split("attention.attention.")[1]
    return {"q_bias": "query.bias", "v_bias": "value.bias"}.get(tail, tail)
