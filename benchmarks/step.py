"""One training step of ViT-B on a CPU: ours against a plain implementation of the same model.

    python benchmarks/step.py                       # ViT-B, 16 × 224², batch 2, 70 % masked, fp32
    python benchmarks/step.py --size tiny --image-size 64 --rounds 2

A step is forward, loss, backward and AdamW. The plain model (`benchmarks/plain.py`) has a Conv3d
embedding, boolean masks and explicit softmax attention; both start from the same weights, and their
predictions are compared before anything is timed. Steps are interleaved; the medians' ratios are
given. On one thread (the default) the process' CPU time is taken, which other work on the machine
disturbs less than the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from plain import PlainModel, plain_loss
from torch import Tensor, nn

from mme_core.losses import reconstruction_loss
from mme_core.masking import hidden_count, make_mask
from mme_core.model import build_pretraining_model, split_tokens
from mme_core.spec import TUBELET

Step = Callable[[], Tensor]
WEIGHTS = {"position": 1.0, "shape": 1.0}


def main() -> None:
    args = _parse()
    torch.set_num_threads(args.threads)
    ours, plain = build_steps(args)
    difference = abs(float(ours()) - float(plain()))
    print(
        f"{args.size}, {args.batch} clips, {args.threads} threads; losses differ {difference:.1e}"
    )
    steps = {"plain": plain, "ours": ours}
    if not args.no_compile:
        # Both of them, for the comparison of like with like; compiled on their first steps.
        args.compile = True
        compiled, plain_compiled = build_steps(args)
        steps |= {"ours, compiled": compiled, "plain, compiled": plain_compiled}
    clock = time.process_time if args.threads == 1 else time.perf_counter
    medians = measure(steps, args.rounds, clock)
    for name, seconds in medians.items():
        ratio = medians["plain"] / seconds
        print(f"{name:<16} {seconds:7.3f} s a step   {ratio:5.2f} × the speed of plain")


def build_steps(args: argparse.Namespace) -> tuple[Step, Step]:
    """Training steps of ours and of the plain model, on the same batch."""
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

    def our_loss() -> Tensor:
        hidden_BM = split_tokens(mask_BN, hidden)[1]
        return reconstruction_loss(run(clip, mask_BN, hidden), targets, hidden_BM, WEIGHTS)[0]

    def their_loss() -> Tensor:
        return plain_loss(run_plain(clip, mask_BN), targets, mask_BN)

    _check_equal(model(clip, mask_BN, hidden), plain(clip, mask_BN))
    run = torch.compile(model) if args.compile else model
    run_plain = torch.compile(plain) if args.compile else plain
    return _step(model, our_loss), _step(plain, their_loss)


def measure(steps: dict[str, Step], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each step, interleaved; the first call of each is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if number:
                times[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _check_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, prediction in ours.items():
        torch.testing.assert_close(prediction, theirs[name], rtol=1e-3, atol=1e-4)


def _step(model: nn.Module, loss_of: Callable[[], Tensor]) -> Step:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> Tensor:
        loss = loss_of()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16, help=f"a multiple of {TUBELET}")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.set_defaults(compile=False)
    return parser.parse_args()


if __name__ == "__main__":
    main()
