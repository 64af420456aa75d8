"""How the step of `benchmarks/gpu_train.py` is compiled and run: the variants that it compares."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from train.objective.reconstruction import PretrainStep

TRIED_DEPTH = 4


@dataclass(frozen=True)
class Variant:
    """How a step on one batch is run.

    compile    "no", "model", "blocks" (one by one) or "whole"
    attention  the only back-end allowed: "cudnn", "flash" or "efficient"; "": torch's choice
    options    of torch.compile
    mode       of torch.compile; "" is its default
    """

    residual: str = "fp32"
    compile: str = "whole"
    batch: int | None = None
    depth: int | None = None
    attention: str = ""
    qkv: str = "unbind"  # timm's; or "chunk" or "separate", see _attend
    options: tuple[tuple[str, Any], ...] = ()
    mode: str = ""


TRIED = Variant("bf16", depth=TRIED_DEPTH)
VARIANTS = {
    "eager": Variant(compile="no"),
    "model": Variant(compile="model"),
    "whole": Variant(),
    "bf16": Variant("bf16"),
    "whole-256": Variant(batch=256),
    "bf16-256": Variant("bf16", batch=256),
    "try-base": TRIED,
    "try-cudnn": replace(TRIED, attention="cudnn"),
    "try-flash": replace(TRIED, attention="flash"),
    "try-separate": replace(TRIED, qkv="separate"),
    "try-chunk": replace(TRIED, qkv="chunk"),
    "try-blocks": replace(TRIED, compile="blocks"),
    "try-no-mix": replace(TRIED, options=(("triton.mix_order_reduction", False),)),
    "try-descent": replace(TRIED, options=(("coordinate_descent_tuning", True),)),
    "try-pointwise": replace(TRIED, options=(("max_autotune_pointwise", True),)),
    "try-graphs": replace(TRIED, mode="reduce-overhead"),
    "try-graphs-16": replace(TRIED, mode="reduce-overhead", batch=16),
    "try-base-16": replace(TRIED, batch=16),
    "try-autotune": replace(TRIED, options=(("max_autotune", True),)),
}


def compile_step(step: PretrainStep, variant: Variant) -> None:
    options: dict[str, Any] = {"dynamic": False}
    if variant.options:
        options["options"] = dict(variant.options)
    if variant.mode:
        options["mode"] = variant.mode
    if variant.qkv != "unbind":
        _change_attention(step, variant.qkv == "separate")
    if variant.compile == "whole":
        step.compile(**options)
    elif variant.compile == "model":
        step.model.predict_depths = torch.compile(step.model.predict_depths, **options)
    elif variant.compile == "blocks":
        for blocks in (step.model.encoder.blocks, step.model.decoders["joint"].blocks):
            for block in blocks:
                block.compile(**options)


@contextlib.contextmanager
def only_attention(name: str) -> Iterator[None]:
    """Allows one back-end of attention alone; "": all."""
    switches = {
        "cudnn": torch.backends.cuda.enable_cudnn_sdp,
        "flash": torch.backends.cuda.enable_flash_sdp,
        "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
    }
    for key, switch in switches.items():
        switch(not name or key == name)
    yield
    for switch in switches.values():
        switch(True)


def _change_attention(step: PretrainStep, separate: bool) -> None:
    """Encoder blocks compute q, k and v by a product each, so that no gradients are joined; or by
    one product whose columns are cut, so that they are joined without a change of layout."""

    def attend(self: Attention, x: Tensor, **_: Any) -> Tensor:
        if separate:
            weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
            parts = [F.linear(x, w, b) for w, b in zip(weights, biases)]
        else:
            parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    for block in step.model.encoder.blocks:
        assert isinstance(block, nn.Module)
        block.attn.forward = attend.__get__(block.attn)
