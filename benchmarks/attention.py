"""Attention on a CPU: torch's fused kernel beside two matrix products and a softmax.

    OMP_NUM_THREADS=1 python benchmarks/attention.py

Prints the milliseconds of processor time of a forward and a backward pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SHAPES = {  # clips, heads, tokens, width of a head
    "visible tokens, 64 px, patches of 8": (32, 3, 77, 64),
    "all tokens of its decoder": (32, 3, 256, 32),
    "visible tokens, 112 px": (16, 3, 59, 64),
    "all tokens, 112 px": (16, 3, 196, 64),
    "visible tokens of ViT-B, 224 px": (8, 12, 470, 64),
}


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v


def main() -> None:
    for name, shape in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
            times = [milliseconds(attention, q, k, v) for attention in (fused, plain)]
            print(f"{name:36} {dtype!s:15} fused {times[0]:6.1f}  plain {times[1]:6.1f}")


def milliseconds(
    attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, passes: int = 10
) -> float:
    for number in range(passes + 2):
        if number == 2:  # after warming up
            began = time.process_time()
        attention(q, k, v).sum().backward()
    return (time.process_time() - began) / passes * 1e3


if __name__ == "__main__":
    main()
