"""How fast a run is, and what its device does meanwhile."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

# Dense products in bf16 or fp16, FLOP/s, by a part of the card's name; the first match counts.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "B200": 2250e12,
}


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s of the card in bf16; None for a CPU and for a card that PEAKS does not name."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def peak_memory(device: torch.device) -> float:
    """GB: the peak of what torch has held on the GPU, or of this process' RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class Moment:
    """A point in the device's stream of work: when it got there. On a CPU: now."""

    def __init__(self, device: torch.device) -> None:
        self.time = time.perf_counter()
        self.event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()

    def wait(self) -> None:
        """Returns once the device got here."""
        if self.event:
            self.event.synchronize()

    def since(self, earlier: Moment) -> float:
        """Seconds on the device's clock. It must have got here."""
        if self.event and earlier.event:
            return earlier.event.elapsed_time(self.event) / 1000
        return self.time - earlier.time


@dataclass
class Interval:
    """The steps between two readings of a `Meter`; `figures` once the device has done them.

    clips   clips of a step, of all processes
    left    steps left after this interval
    flops   of one process' part of a step, forward and backward; None: unknown
    gaps    (end of the work before, begin of the next), in the device's stream
    waited  seconds in which the host waited for the loader
    """

    clips: int
    left: int
    device: torch.device
    flops: float | None
    start: Moment
    end: Moment
    steps: int = 0
    waited: float = 0.0
    gaps: list[tuple[Moment, Moment]] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Names and meanings are in docs/training.md."""
        spent = max(self.end.since(self.start), 1e-9)
        figures = {"clips_per_s": self.clips * self.steps / spent, "data_wait": self.waited / spent}
        if self.device.type == "cuda":
            idle = sum(begin.since(end) for end, begin in self.gaps)
            figures["device_idle"] = idle / spent
        peak = peak_flops(self.device)
        if peak and self.flops:
            figures["mfu"] = self.flops * self.steps / spent / peak
        figures["memory"] = peak_memory(self.device)
        figures["eta"] = self.left * spent / max(self.steps, 1)
        return {name: round(value, 4) for name, value in figures.items()}


class Meter:
    """Measures the steps of a run. Pauses (evaluations, checkpoints) and the first step, which
    compiles and starts the loader, are left out by `restart`.

    CUDA's figures come from events in its stream: the host runs ahead of the device, so its own
    clock says little about what the device does.
    """

    def __init__(
        self, device: torch.device, clips: int, steps_left: int, flops: float | None = None
    ) -> None:
        self.device, self.clips, self.left, self.flops = device, clips, steps_left, flops
        self.restart()

    def restart(self) -> None:
        now = Moment(self.device)
        self.interval = Interval(self.clips, self.left, self.device, self.flops, now, now)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around what hands over a micro-batch. The device's work on it begins at the end."""
        began = time.perf_counter()
        yield
        self.interval.waited += time.perf_counter() - began
        self.interval.gaps.append((self.interval.end, Moment(self.device)))

    def end_micro_batch(self) -> None:
        self.interval.end = Moment(self.device)

    def end_step(self) -> None:
        self.end_micro_batch()
        self.interval.steps += 1
        self.left -= 1
        self.interval.left = self.left

    def take(self) -> Interval:
        """The interval up to the last end of a step; the next one begins there."""
        done = self.interval
        self.interval = Interval(self.clips, self.left, self.device, self.flops, done.end, done.end)
        return done
