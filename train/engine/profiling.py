"""A profile of a few steps of a run: a trace for chrome://tracing, and a table of its kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

FOLDER = "profile"
TRACE, TABLE = "trace.json", "kernels.txt"
SKIPPED = 10  # steps before the profile: they compile, and fill the loader's queue
ROWS = 60

# The kind of a kernel by a part of its name; the first match counts.
KINDS = {
    "attention": ("flash", "fmha", "sdpa", "attention"),
    "products": ("gemm", "nvjet", "cutlass", "cublas", "::mm", "addmm", "bmm"),
    "copies to and from the host": ("memcpy htod", "memcpy dtoh"),
    "optimiser": ("adam", "multi_tensor"),
    "fused by the compiler": ("triton",),
}


class Profile:
    """Traces `steps` steps of a run into OUT/profile: a context; call `step` after each step.

    left  steps that the run still has
    done  whether the files are written
    """

    def __init__(self, out: Path, steps: int, left: int, device: torch.device) -> None:
        self.folder, self.steps, self.device, self.done = out / FOLDER, steps, device, False
        warmup = 1 if left > steps else 0
        wait = max(min(SKIPPED, left - steps - warmup), 0)
        self.before = wait + warmup  # steps until tracing begins; then minus the traced steps
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=wait, warmup=warmup, active=steps, repeat=1),
            on_trace_ready=self._write,
            acc_events=True,  # one cycle; without it torch warns
        )

    def __enter__(self) -> Profile:
        self.profiler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.profiler.stop()

    def step(self) -> bool:
        """True where this call wrote the files, which takes seconds."""
        written = self.done
        self.before -= 1
        if self.device.type == "cuda" and self.before in (0, -self.steps):
            torch.cuda.synchronize()  # or the trace would hold a part of the step before
        self.profiler.step()
        return self.done and not written

    def _write(self, profiler: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / TRACE))
        traced = max(-self.before, 1)  # fewer than `steps` where the run ended before
        text = kernel_table(profiler.events(), traced, self.device)
        (self.folder / TABLE).write_text(text)
        self.done = True


def kernel_table(events: Iterable[Any], steps: int, device: torch.device) -> str:
    """Milliseconds and calls a step of each kernel (on a CPU: of each operator), by kinds first.

    Its first line says for which share of the time the device was at work.
    """
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    first, last = float("inf"), 0.0
    for event in events:
        first = min(first, event.time_range.start)
        last = max(last, event.time_range.end)
        milliseconds = _milliseconds(event, device)
        if milliseconds is not None:
            spent[event.name] += milliseconds / steps
            calls[event.name] += 1
    whole = max(last - first, 1e-9) / 1000 / steps
    busy = sum(spent.values())
    kinds: dict[str, float] = defaultdict(float)
    for name, value in spent.items():
        kinds[_kind(name)] += value
    lines = [f"{whole:.2f} ms a step, {busy:.2f} ms of kernels ({busy / whole:.1%}); {steps} steps"]
    lines += ["", "ms a step  share  kind"]
    for name, value in sorted(kinds.items(), key=lambda item: -item[1]):
        lines.append(f"{value:9.3f}  {value / max(busy, 1e-9):5.1%}  {name}")
    lines += ["", "ms a step  calls a step  kernel"]
    for name, value in sorted(spent.items(), key=lambda item: -item[1])[:ROWS]:
        lines.append(f"{value:9.3f}  {calls[name] / steps:12.1f}  {name[:160]}")
    return "\n".join(lines) + "\n"


def _milliseconds(event: Any, device: torch.device) -> float | None:
    """Own time of an event on the device; None for what is no work of it."""
    if device.type == "cuda":
        kernel = event.device_type == DeviceType.CUDA and not event.is_user_annotation
        return event.time_range.elapsed_us() / 1000 if kernel else None
    return event.self_cpu_time_total / 1000 if event.name.startswith("aten::") else None


def _kind(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in lower for p in parts)), "other")
