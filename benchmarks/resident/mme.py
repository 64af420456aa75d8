"""`mme`, whose pre-training takes its clips from arrays on the GPU (`clips.py` here).

    PYTHONPATH=. python -P -m benchmarks.resident.mme pretrain --config … store=[a,b] \\
        resident.speeds=[1,2,3] resident.zoom=[7,8]

The stores must have been decoded by `cache.py` here. All other words and commands are those of
`mme`; held-out clips come through the usual loader.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from benchmarks.resident.clips import ResidentClips
from mme_core import cli
from mme_core.clips.dataset import ClipDataset

KEYS = ("resident.speeds", "resident.zoom")


def main(words: list[str]) -> int:
    own = {key: word for word in words for key in KEYS if word.startswith(f"{key}=")}
    rest = [word for word in words if word not in own.values()]
    if words[:1] == ["pretrain"] and own:
        from train import pretrain

        speeds, zoom = (json.loads(own[key].partition("=")[2]) for key in KEYS)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

        def resident(clips: ClipDataset, sampler: Any, *_: Any, **__: Any) -> ResidentClips:
            return ResidentClips(clips, sampler, device, speeds, zoom)

        pretrain.make_clip_loader = resident  # type: ignore[assignment]
        if hasattr(pretrain, "make_resident"):
            pretrain.make_resident = lambda *_: (None, "clips lie on the device")
    return cli.main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
