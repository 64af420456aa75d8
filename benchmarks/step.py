"""One training step of ViT-B on a CPU: ours beside a plain implementation of the same model.

    python benchmarks/step.py                       # ViT-B, 16 × 224², batch 2, 70 % masked, fp32
    python benchmarks/step.py --size tiny --image-size 64 --rounds 2

A step is forward, loss, backward and AdamW. The plain model (`benchmarks/plain.py`) has a Conv3d
embedding, boolean masks, explicit softmax attention and AdamW with its defaults (not fused). Both
models start from the same weights, and their predictions are compared before anything is timed.
Steps are interleaved. Prints medians of the seconds, and of each round's ratio to the plain
model.

The last line is the time of the plain model's matrix products alone: a limit for every model with
the same products from the same library. --threads 1 measures processor time, which other work
disturbs less. It hides what the plain model loses where its passes over memory do not run in
parallel. The results are in docs/measurements/model.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from plain import PlainModel, plain_loss
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mme_core.losses import reconstruction_loss
from mme_core.masking import hidden_count, make_mask
from mme_core.model import build_pretraining_model
from mme_core.spec import TUBELET
from mme_core.tokens import split_tokens

Step = Callable[[], None]
WEIGHTS = {"position": 1.0, "shape": 1.0}
PRODUCTS = [
    f"aten::{name}" for name in ("mm", "addmm", "bmm", "mkldnn_convolution", "convolution_backward")
]


def main() -> None:
    args = _parse()
    torch.set_num_threads(args.threads)
    print(f"{args.size}, batch {args.batch}, {args.threads} thread(s)", flush=True)
    steps = build_steps(args)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    times = measure(steps, args.rounds, clock)
    for name, seconds in times.items():
        ratio = statistics.median(p / s for p, s in zip(times["plain"], seconds))
        median = statistics.median(seconds)
        print(f"{name:<16} {median:7.3f} s a step   {ratio:5.2f} × the speed of plain")
    products, whole = seconds_of_products(steps["plain"])
    print(f"{'products alone':<16} {products:7.3f} s a step   {whole / products:5.2f} ×")


def build_steps(args: argparse.Namespace) -> dict[str, Step]:
    """Training steps of both models on the same batch; compiled ones share the eager's weights."""
    torch.manual_seed(0)
    model = build_pretraining_model(args.size, frames=args.frames, image_size=args.image_size)
    plain = PlainModel(model)
    grid = model.encoder.grid
    hidden = hidden_count(grid, 0.7)
    rng = np.random.default_rng(0)
    masks = [make_mask("tube", grid, 0.7, rng) for _ in range(args.batch)]
    mask_BN = torch.stack([torch.from_numpy(mask).flatten() for mask in masks])
    clip = torch.randn(args.batch, *model.encoder.clip_shape)
    targets = {
        name: (torch.randn(*mask_BN.shape, size), torch.rand(*mask_BN.shape, size) > 0.1)
        for name, size in (("position", 48), ("shape", 216))
    }

    _check_equal(model(clip, mask_BN, hidden), plain(clip, mask_BN))

    def our_loss(run: nn.Module) -> Tensor:
        hidden_BM = split_tokens(mask_BN, hidden)[1]
        return reconstruction_loss(run(clip, mask_BN, hidden), targets, hidden_BM, WEIGHTS)[0]

    def their_loss(run: nn.Module) -> Tensor:
        return plain_loss(run(clip, mask_BN), targets, mask_BN)

    steps = {}
    for name, module, loss_of in (("plain", plain, their_loss), ("ours", model, our_loss)):
        optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=module is model)
        steps[name] = partial(_step, module, loss_of, optimiser)
        if not args.no_compile:
            steps[f"{name}, compiled"] = partial(_step, torch.compile(module), loss_of, optimiser)
    return steps


def measure(
    steps: dict[str, Step], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each step, interleaved; the first round, which compiles, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if number:
                times[name].append(clock() - start)
    return times


def seconds_of_products(step: Step) -> tuple[float, float]:
    """Seconds that a step spends in matrix products, and in all."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    seconds = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
    return sum(seconds.get(name, 0.0) for name in PRODUCTS), sum(seconds.values())


def _check_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, prediction in ours.items():
        torch.testing.assert_close(prediction, theirs[name], rtol=1e-3, atol=1e-4)


def _step(
    run: nn.Module, loss_of: Callable[[nn.Module], Tensor], optimiser: torch.optim.Optimizer
) -> None:
    loss_of(run).backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16, help=f"a multiple of {TUBELET}")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
