"""Peak memory of a worker of `mme flows`: its Ray process and the process that decodes.

    python benchmarks/memory.py [--frames 3000] [--videos 200] [--seconds 10]

One worker processes one long video, then one shard of many ten-second videos, all of 340×256. The
peaks are the kernel's (VmHWM), read during the run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
import psutil

FPS = 25


def write_video(path: Path, frames: int) -> None:
    """A texture that drifts, 340×256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).random((320, 420, 3), np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for number in range(frames):
            x, y = 30 * np.sin(number / 20) - 40, 20 * np.sin(number / 33) - 30
            image = cv2.warpAffine(texture, np.float32([[1, 0, x], [0, 1, y]]), (340, 256))
            picture = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def peaks(root: Path, store: Path, *more: str) -> tuple[float, float]:
    """MB of (the Ray process, the decoding process) while `mme flows` runs."""
    command = [sys.executable, "-m", "mme_core", "flows", "--dataset", "folder", "--workers", "1"]
    driver = subprocess.Popen([*command, "--root", str(root), "--store", str(store), *more])
    ray_process = decoder = 0.0
    while driver.poll() is None:
        for child in psutil.Process(driver.pid).children(recursive=True):
            try:
                if "preprocess.child" in child.cmdline():
                    decoder = max(decoder, high_water(child.pid))
                    ray_process = max(ray_process, high_water(child.ppid()))
            except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
                continue  # it ended meanwhile
        time.sleep(0.2)
    if driver.returncode:
        sys.exit(driver.returncode)
    return ray_process, decoder


def high_water(pid: int) -> float:
    """Peak resident memory of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=3000, help="frames of the long video")
    parser.add_argument("--videos", type=int, default=200, help="videos in the shard")
    parser.add_argument(
        "--seconds", type=float, default=10, help="length of each video in the shard"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        write_video(top / "long/a/long.mp4", arguments.frames)
        write_video(top / "many/a/000.mp4", round(arguments.seconds * FPS))
        for number in range(1, arguments.videos):
            os.link(top / "many/a/000.mp4", top / f"many/a/{number:03d}.mp4")
        for name, text in (
            ("long", f"one video of {arguments.frames} frames"),
            ("many", f"a shard of {arguments.videos} videos of {arguments.seconds:g} s"),
        ):
            more = ["--videos-per-shard", str(arguments.videos)]
            ray_process, decoder = peaks(top / name, top / "store", *more)
            total = ray_process + decoder
            print(f"{text}: {decoder:.0f} MB + {ray_process:.0f} MB of Ray = {total:.0f} MB")
            shutil.rmtree(top / "store")
    return 0


if __name__ == "__main__":
    sys.exit(main())
