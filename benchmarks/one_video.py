"""What benchmarks of stage 1 share: the videos they measure, one video's shard, processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mme_core.datasets import load_manifest
from mme_core.extract import stream_tubelets
from mme_core.extract.results import TubeletTargets, VideoSummary
from mme_core.spec import TargetSpec
from mme_core.store.writer import ShardWriter


def split_words(words: Sequence[str], folder: str, demo: int) -> tuple[list[Path], list[str]]:
    """The videos and the `spec.FIELD=VALUE` words of a command line.

    Without videos, `demo` videos of the demo set are made in the folder.
    """
    overrides = [word for word in words if word.startswith("spec.")]
    videos = [Path(word) for word in words if word not in overrides]
    if not videos:
        videos = [Path(item.path) for item in load_manifest("demo", folder, videos=demo).items]
    return videos, overrides


def store_video(
    writer: ShardWriter,
    path: Path,
    spec: TargetSpec,
    also: Callable[[TubeletTargets], None] | None = None,
    **options: Any,
) -> VideoSummary:
    """Extracts a video into an open shard; its id is the file's name.

    also     gets each tubelet, too
    options  of `stream_tubelets`
    """
    stream = stream_tubelets(path, spec, **options)
    writer.begin_video()
    for tubelet in stream:
        writer.append(tubelet)
        if also is not None:
            also(tubelet)
    about = stream.summary
    assert about is not None  # set by a complete iteration
    row = {name: getattr(about, name) for name in ("fps", "height", "width", "frames")}
    row |= {"id": path.name, "path": str(path), "label": -1, "warnings": list(about.warnings)}
    writer.end_video(row)
    return about


def processor_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
