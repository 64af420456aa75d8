"""Checks this machine and the installation, and tries both stages on a generated video.

    mme doctor

A line for each check: "ok", "note" (something works less well or is not installed) or "FAIL".
Exit status 1 if a check fails.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from mme_core.control_groups import memory_limits
from mme_core.cores import bf16_instructions, usable_cores
from mme_core.parser import CommandParser
from mme_core.processes import child_environment
from mme_core.terminal import plain

OK, NOTE, FAIL = "ok", "note", "FAIL"
_LIBRARY = ("numpy", "zarr")
_BOTH = {"cv2": "opencv-contrib-python-headless", "av": "av"}
_STAGE2 = ("torch", "torchvision", "timm", "einops", "omegaconf", "safetensors")
_DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg")
_RAY = (2, 60)  # an older Ray asks for no token on one machine
_LEAST_DISK, _LEAST_MEMORY = 1e9, 1e9  # bytes
_PATIENCE_S = 600
_SMALL = ("spec.stride=1", "spec.short_side=64", "spec.long_side=80", "spec.flow=dis-ultrafast")


@dataclass(frozen=True)
class Finding:
    """One line: its verdict (OK, NOTE or FAIL), what was checked, and what was found."""

    verdict: str
    name: str
    text: str


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit status."""
    parser = CommandParser("doctor", __doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    as_json = parser.parse_args(argv).json
    found = []
    for check in CHECKS:
        for finding in check():
            found.append(finding)
            if not as_json:
                print(plain(f"{finding.verdict:<5}{finding.name:<16}{finding.text}"), flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    return 1 if any(finding.verdict == FAIL for finding in found) else 0


def versions() -> Iterator[Finding]:
    yield Finding(OK, "python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding(OK, "mme", _version("mme") or "not installed, run from its sources")
    for module in (*_LIBRARY, *_BOTH):
        name = _BOTH.get(module, module)
        if find_spec(module) is None:
            mend = "pip install '.[preprocess]' or '.[train]'" if module in _BOTH else "make setup"
            yield Finding(FAIL, name[:13], f"not installed: {mend}")
        else:
            yield Finding(OK, module, _version(name) or "installed")


def stage2() -> Iterator[Finding]:
    missing = [name for name in _STAGE2 if find_spec(name) is None]
    if missing:
        text = f"not installed: {', '.join(missing)}; for training: pip install '.[train]'"
        yield Finding(NOTE, "stage 2", text)
        return
    yield Finding(OK, "torch", f"{_version('torch')}, timm {_version('timm')}")
    torch = import_module("torch")
    if not torch.cuda.is_available():
        name = bf16_instructions()
        faster = f", where precision=bf16 is faster than fp32 ({name})" if name else ""
        yield Finding(NOTE, "GPU", f"none that torch can use: training runs on the CPU{faster}")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding(OK, "GPU", f"{about.name}, {about.total_memory / 1e9:.0f} GB")


def machine() -> Iterator[Finding]:
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    limited = f" of {all_cores} (affinity or CPU quota)" if cores < all_cores else ""
    yield Finding(OK, "cores", f"{cores}{limited}")
    yield from _memory(Path("/proc/meminfo"), memory_limits())
    for name, folder in (("disk, here", "."), ("disk, temp", tempfile.gettempdir())):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Finding(FAIL, name, f"{folder}: {error.strerror}")
            continue
        short = free < _LEAST_DISK
        text = f"{free / 1e9:.1f} GB free in {Path(folder).absolute()}"
        yield Finding(FAIL if short else OK, name, text + (": make room" if short else ""))


def _memory(meminfo: Path, limits: Iterable[tuple[int, int]]) -> Iterator[Finding]:
    """Free memory; `limits` are those of `memory_limits`."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
        total = 1024 * int(lines["MemTotal"].split()[0])
    except (OSError, KeyError, ValueError):
        yield Finding(NOTE, "memory", "unknown on this system")
        return
    for limit, used in limits:
        total, free = min(total, limit), min(free, limit - used)
    short = free < _LEAST_MEMORY
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    yield Finding(NOTE if short else OK, "memory", text + (": a worker needs 1 GB" * short))


def decoders() -> Iterator[Finding]:
    if find_spec("av") is None:
        return
    av = import_module("av")
    missing = [name for name in _DECODERS if name not in av.codecs_available]
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    if missing:
        yield Finding(NOTE, "decoders", f"libavcodec {version} lacks {', '.join(missing)}")
    else:
        yield Finding(OK, "decoders", f"libavcodec {version}: {', '.join(_DECODERS)}")


def ray() -> Iterator[Finding]:
    from mme_core.errors import UsageError
    from preprocess.ray_start import check_processes, short_folder

    version = _version("ray")
    if version is None or find_spec("ray") is None:
        text = "not installed: use `mme flows --serial`, or pip install '.[preprocess]'"
        yield Finding(NOTE, "Ray", text)
        return
    if tuple(int(part) for part in version.split(".")[:2]) < _RAY:
        yield Finding(NOTE, "Ray", f"{version} is older than 2.60: update it, or use --serial")
        return
    try:
        check_processes(usable_cores())
        yield Finding(OK, "Ray", f"{version}, its files go to {short_folder()}")
    except UsageError as error:
        yield Finding(NOTE, "Ray", str(error))


def both_stages() -> Iterator[Finding]:
    """Makes two videos of two seconds, their store, and takes one training step."""
    if any(find_spec(name) is None for name in (*_LIBRARY, *_BOTH)):
        yield Finding(FAIL, "stage 1, tried", "not tried: packages are missing, see above")
        return
    with tempfile.TemporaryDirectory(prefix="mme-doctor-") as folder:
        words = ["flows", "--dataset", "demo", "--demo-videos", "2", "--serial"]
        words += ["--max-failures", "0"]
        words += ["--root", f"{folder}/videos", "--store", f"{folder}/store", *_SMALL]
        tried = _try("stage 1, tried", words, "videos made, decoded, tracked and stored")
        yield tried
        if tried.verdict != OK or any(find_spec(name) is None for name in _STAGE2):
            return
        words = ["pretrain", "--config", "tiny.yaml", f"store={folder}/store", f"out={folder}/run"]
        words += ["data.batch_size=1", "optim.steps=1", "checkpoint.every=1"]
        yield _try("stage 2, tried", words, "one training step")


def _try(name: str, words: list[str], done: str) -> Finding:
    """Runs a command of `mme` in a child process."""
    began = time.monotonic()
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "mme_core", *words],
            env=child_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(FAIL, name, str(error))
    if child.returncode:
        said = (child.stderr.strip() or child.stdout.strip()).splitlines() or ["no message"]
        return Finding(FAIL, name, f"exit status {child.returncode}: {said[-1]}")
    return Finding(OK, name, f"{done} in {time.monotonic() - began:.1f} s")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


Check = Callable[[], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (versions, stage2, machine, decoders, ray, both_stages)
