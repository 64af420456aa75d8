"""Little files for the tests of the driver: videos of a few frames, and ruined ones."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

# small and quick: 3×3 patches, a few milliseconds a video
SPEC = [
    "spec.stride=2",
    "spec.length=3",
    "spec.short_side=48",
    "spec.long_side=48",
    "spec.flow=dis-ultrafast",
]

# A flow that holds a run of six small clips or more in its middle: after 40 calls of all processes
# (nine a clip) it waits for the file `go` beside the plug-in. Remove `calls` to count anew.
HELD_PLUGIN = """
import time
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

def flow(first, second):
    with (HERE / "calls").open("ab") as calls:
        calls.write(b".")
        count = calls.tell()
    while count > 40 and not (HERE / "go").exists():
        time.sleep(0.02)
    return np.zeros((*first.shape, 2), np.float32)
"""


def write_clip(path: Path, frames: int = 12, height: int = 48, width: int = 64) -> Path:
    """A texture that moves right by 1.5 px a frame, drawn from the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode("utf-8", "surrogateescape"))
    noise = np.random.default_rng(seed).random((height + 40, width + 40), np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = cv2.normalize(texture, None, 20, 235, cv2.NORM_MINMAX)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shift = np.float32([[1, 0, 1.5 * number - 20], [0, 1, -10]])
            image = cv2.warpAffine(texture, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
            picture = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="gray")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def write_tree(root: Path, count: int = 6, classes: tuple[str, ...] = ("a", "b")) -> Path:
    """`count` clips, spread over the classes."""
    for number in range(count):
        write_clip(root / classes[number % len(classes)] / f"{number:03d}.mp4")
    return root
