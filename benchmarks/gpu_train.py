"""Speed of pre-training on one GPU: clips/s, memory, utilisation.

    python benchmarks/gpu_train.py                              # synthetic batches only
    python benchmarks/gpu_train.py --store STORE --workers 16   # and fed from a store's frames
    python benchmarks/gpu_train.py --size tiny --image-size 64 --batch 4 --steps 3 --no-compile

Defaults: ViT-B, 16 × 224², 70 % masked, bf16, compiled. The first measurement uses one batch that
stays on the device. With --store two more use batches from the store, loaded by --workers
processes, with 1 and with 2 crops of a decoded clip. A step is that of `mme pretrain`: targets,
forward, loss, backward, AdamW. Model FLOPs are three times the forward's, counted on the model's
own operators, 2 for a multiply–add. Utilisation is their share of the device's dense bf16 peak
(--peak for a device that is not listed). On a CPU it runs as a smoke test in float32. The results
are in docs/measurements/model.md.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mme_core.clips.contents import content_sizes, content_weights
from mme_core.clips.dataset import ClipDataset, collate
from mme_core.clips.settings import TargetSettings
from mme_core.masking import hidden_count, make_mask
from mme_core.model import PretrainingModel, build_pretraining_model
from mme_core.spec import TUBELET, TargetSpec
from mme_core.store import TargetStore
from mme_core.targets import MOMENTS
from train.data.loader import make_loader
from train.objective.reconstruction import Objective

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, FLOP/s
RATIO = 0.7
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    """Clips a second, share of the time spent waiting for data, largest memory (0 on a CPU)."""

    clips_per_s: float
    waited: float
    gigabytes: float


def main() -> None:
    args = _parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    store = TargetStore(args.store) if args.store else None
    spec = store.spec if store else TargetSpec()
    objective = make_objective(args, spec, device)
    sizes = content_sizes(list(objective.weights), spec, objective.settings)
    options = {"frames": args.frames, "image_size": args.image_size, "heads": sizes}
    flops = 3 * forward_flops(args.size, objective.hidden, options)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = args.peak * 1e12 or next((PEAKS[key] for key in PEAKS if key in name), 0)
    print(f"{name}, ViT-{args.size}, batch {args.batch}, {objective.dtype}, ", end="")
    print(f"{flops / 1e9:.0f} GFLOP a clip and step")

    sources = {"synthetic": itertools.repeat(synthetic_batch(args, spec, device))}
    if store:
        sources |= {f"store, {n} crop(s)": store_batches(args, store, n) for n in args.crops}
    for source, batches in sources.items():
        model = build_pretraining_model(args.size, **options).to(device)
        if not args.no_compile:
            model.compile()
        result = measure(model, objective, batches, args)
        utilisation = f"{result.clips_per_s * flops / peak:.1%}" if peak else "unknown peak"
        print(
            f"{source:<18} {result.clips_per_s:8.1f} clips/s   waiting {result.waited:5.1%}   "
            f"{result.gigabytes:5.1f} GB   utilisation {utilisation}",
            flush=True,
        )


def make_objective(args: argparse.Namespace, spec: TargetSpec, device: torch.device) -> Objective:
    side = args.image_size // spec.patch
    settings, weights = TargetSettings(), content_weights(["trajectory"], {})
    return Objective(
        spec=spec,
        settings=settings,
        weights=weights,
        sizes=content_sizes(list(weights), spec, settings),
        hidden=hidden_count((args.frames // TUBELET, side, side), RATIO),
        mask_invalid=True,
        shuffle=False,
        device=device,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
    )


def measure(
    model: PretrainingModel,
    objective: Objective,
    batches: Iterator[Batch],
    args: argparse.Namespace,
) -> Result:
    """Times `args.steps` steps, after the warm-up steps that compile and fill the queues."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    on_gpu = objective.device.type == "cuda"
    waited = start = 0.0
    for step in range(-args.warmup, args.steps):
        if step == 0:
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            waited, start = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        batch = {key: value.to(objective.device, non_blocking=True) for key, value in batch.items()}
        question = objective.ask(batch)
        loss, _ = objective.loss(objective.predict(model, question), question)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0
    return Result(args.steps * args.batch / seconds, waited / seconds, memory)


def forward_flops(size: str, hidden: int, options: dict) -> int:
    """FLOPs of one clip's forward pass, counted without computing it."""
    with torch.device("meta"):
        model = build_pretraining_model(size, **options)
        clip = torch.empty(1, *model.encoder.clip_shape)
        mask_BN = torch.empty(1, model.encoder.tokens, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        model(clip, mask_BN, hidden)
    return counter.get_total_flops()


def synthetic_batch(args: argparse.Namespace, spec: TargetSpec, device: torch.device) -> Batch:
    """A batch of noise in the form that the loader delivers, on the device."""
    side, n = args.image_size // spec.patch, args.frames // TUBELET
    tokens = (args.batch, n, side, side)
    track = (*tokens, spec.points, spec.length)
    rng = np.random.default_rng(0)
    masks = [make_mask("tube", tokens[1:], RATIO, rng).ravel() for _ in range(args.batch)]
    pixels = (args.batch, args.frames, args.image_size, args.image_size, 3)
    batch = {
        "frames": torch.randint(0, 256, pixels, dtype=torch.uint8),
        "position": torch.randint(-127, 128, (*track, 2), dtype=torch.int8),
        "shape": torch.randint(-127, 128, (*track, spec.hog_bins), dtype=torch.int8),
        "moments": torch.rand(*tokens, MOMENTS),
        "valid": torch.full(tokens, 2**spec.points - 1, dtype=torch.uint8),
        "flip": torch.rand(args.batch) < 0.5,
        "mask": torch.from_numpy(np.stack(masks)),
    }
    return {name: value.to(device) for name, value in batch.items()}


def store_batches(args: argparse.Namespace, store: TargetStore, crops: int) -> Iterator[Batch]:
    """Endless batches of random clips. A small store's videos repeat with other clips."""
    dataset = ClipDataset(
        store, frames=args.frames, image_size=args.image_size, crops=crops, mask_ratio=RATIO
    )
    rng = np.random.default_rng(0)
    steps, videos = args.warmup + args.steps, args.batch // crops
    keys = [
        [(step, int(v)) for v in rng.integers(len(dataset), size=videos)] for step in range(steps)
    ]
    yield from make_loader(dataset, keys, collate, args.workers)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="a store with frames")
    parser.add_argument("--size", default="base")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument(
        "--batch", type=int, help="clips in a step, including crops; default 128, on a CPU 2"
    )
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40, help="timed steps")
    parser.add_argument("--warmup", type=int, default=10, help="steps before the timed ones")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the device")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    options.batch = options.batch or (128 if torch.cuda.is_available() else 2)
    return options


if __name__ == "__main__":
    main()
