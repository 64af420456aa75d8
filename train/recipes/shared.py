"""Keys that the recipes of several commands have: their defaults, help and limits.

device: str = shared.device()
"""

from __future__ import annotations

from typing import Any

from train.recipes.fields import choice, number

DEVICES = ("auto", "cpu", "cuda")
LARGEST_SEED = 2**32 - 1  # torch overflows above 64 bits, and each rank adds its number


def seed() -> Any:
    return number(0, "seed of all random numbers", at_least=0, at_most=LARGEST_SEED)


def device() -> Any:
    return choice("auto", DEVICES, "where to compute")


def precision() -> Any:
    names = ("auto", "fp32", "bf16", "fp16")
    return choice("auto", names, "auto: bf16 on CUDA, fp32 on a CPU")


def compiled() -> Any:
    names = ("auto", True, False)
    return choice("auto", names, "compile the step with torch.compile; auto: on CUDA")


def profile() -> Any:
    help = "number of steps to profile: a trace and a table of kernels in OUT/profile; 0: none"
    return number(0, help, at_least=0)


def resume() -> Any:
    help = 'force: continue the run in "out" although its recipe differs'
    return choice("auto", ("auto", "force"), help)


def bad_budget() -> Any:
    return number(100, "videos that may be unreadable, with others in their place", at_least=0)


def nonfinite_budget() -> Any:
    return number(10, "steps that may be skipped because the loss is not finite", at_least=0)
