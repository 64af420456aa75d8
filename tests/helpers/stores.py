"""Stores of a few real video files."""

from __future__ import annotations

import json
from pathlib import Path


def write_store(url: Path, paths: list[Path], spec, root: Path | None = None) -> Path:
    """A store of one shard with the targets of these video files, named by CLASS/NAME.

    The table's paths are relative to `root`, or absolute without one.
    """
    from mme_core.extract import stream_tubelets
    from mme_core.extract.video_targets import LaterPartError
    from mme_core.store.target_store import open_or_create_store
    from mme_core.store.writer import ShardWriter

    names = sorted({path.parent.name for path in paths})
    open_or_create_store(url, spec, "folder", None, names)
    with ShardWriter(url, 0, spec) as writer:
        for path in paths:
            writer.begin_video()
            stream = stream_tubelets(path, spec)
            try:
                tubelets = list(stream)
            except LaterPartError:
                tubelets = list(stream)
            for tubelet in tubelets:
                writer.append(tubelet)
            about = stream.summary
            writer.end_video(
                {
                    "id": f"{path.parent.name}/{path.name}",
                    "path": str(path.relative_to(root) if root else path),
                    "label": names.index(path.parent.name),
                    "fps": about.fps,
                    "height": about.height,
                    "width": about.width,
                    "frames": about.frames,
                    "warnings": list(about.warnings),
                },
                about.first_frame,
            )
    rows = [
        {"id": f"{path.parent.name}/{path.name}", "path": str(path), "status": "ok"}
        for path in paths
    ]
    (url / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return url
