"""One shard: every video of it stored or quarantined. No Ray here.

`write_shard` does the work in the process that calls it. A decoder may crash or hang inside C, so
the driver calls it in a child process: `python -m preprocess.worker FD` reads jobs from the socket
FD and answers with messages, a JSON object a line:

    {"begin": id}       a video was begun
    {"outcome": {…}}    it ended; see `Outcome`
    {"done": true}      the shard is finished
    {"error": [kind, text]}   the run cannot go on (full disk, bad flow plug-in, …)
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mme_core.datasets import VideoItem
from mme_core.errors import MMEError, StoreError, UsageError, VideoError
from mme_core.io.remote import is_url, relative
from mme_core.spec import TargetSpec

if TYPE_CHECKING:
    from mme_core.extract.video_targets import TubeletStream, TubeletTargets, VideoSummary
    from mme_core.store.writer import ShardWriter

OK, QUARANTINED = "ok", "quarantined"
ERRORS = {kind.__name__: kind for kind in (MMEError, StoreError, UsageError)}


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to know.

    root      the data set's folder: paths in the store are relative to it
    timeout   seconds of wall clock that a video may take
    poison    id -> reason, of videos that took the process down: they are not tried
    """

    number: int
    items: tuple[VideoItem, ...]
    spec: TargetSpec
    store: str
    root: str
    timeout: float
    poison: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        values = dataclasses.asdict(self)
        return json.dumps(values | {"items": [dataclasses.astuple(item) for item in self.items]})

    @classmethod
    def from_json(cls, text: str) -> ShardJob:
        values = json.loads(text)
        items = tuple(VideoItem(*item) for item in values.pop("items"))
        return cls(items=items, spec=TargetSpec.from_dict(values.pop("spec")), **values)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a video: a row of the ledger.

    reason    of a quarantine; empty when stored
    seconds   of wall clock; None where a lost row was made again from the shard
    frames    decoded; duration: of the video in seconds (0 where its rate is not known)
    """

    path: str
    id: str
    status: str
    reason: str = ""
    seconds: float | None = None
    shard: int = 0
    frames: int = 0
    duration: float = 0.0


def write_shard(job: ShardJob, report: Callable[[dict[str, Any]], None]) -> None:
    """Writes the shard and reports each step; raises MMEError when the run cannot go on."""
    from mme_core.store.writer import ShardWriter

    _check_shared_disk(job)
    try:
        with ShardWriter(job.store, job.number, job.spec) as writer:
            for item in job.items:
                report({"begin": item.id})
                report({"outcome": dataclasses.asdict(_process(item, job, writer))})
    except OSError as error:
        raise StoreError(f"cannot write to {job.store}: {error.strerror or error}") from error
    report({"done": True})


def _check_shared_disk(job: ShardJob) -> None:
    """A worker on another node must see the same folders; a local folder there would be lost."""
    from mme_core.io.place import Place
    from mme_core.store.target_store import STORE

    where = socket.gethostname()
    if not Place(job.store).exists(STORE):
        raise StoreError(f"{where} does not see the store {job.store}: it must be on a shared disk")
    if not is_url(job.root) and not Path(job.root).is_dir():
        raise UsageError(f"{where} does not see the videos ({job.root}): share that disk")


def _process(item: VideoItem, job: ShardJob, writer: ShardWriter) -> Outcome:
    started = time.monotonic()
    path = relative(item.path, job.root)

    def outcome(**values: Any) -> Outcome:
        seconds = round(time.monotonic() - started, 3)
        return Outcome(path=item.path, id=item.id, seconds=seconds, shard=job.number, **values)

    try:
        if item.id in job.poison:
            raise VideoError(job.poison[item.id])
        summary = _store(item, path, job, writer)
    except VideoError as error:
        reason = _one_line(error)
        writer.quarantine({"id": item.id, "path": path, "label": item.label, "reason": reason})
        return outcome(status=QUARANTINED, reason=reason)
    fps = summary.fps
    return outcome(
        status=OK, frames=summary.frames, duration=round(summary.frames / fps, 3) if fps else 0.0
    )


def _store(item: VideoItem, path: str, job: ShardJob, writer: ShardWriter) -> VideoSummary:
    """Extracts a video into the shard; VideoError, and no trace of it there, when that fails."""
    from mme_core.extract.video_targets import stream_tubelets

    stream = stream_tubelets(item.path, job.spec, job.timeout)
    writer.begin_video()
    try:
        for tubelet in _blame_the_video(stream):
            writer.append(tubelet)
    except VideoError:
        writer.abandon_video()
        raise
    known = dataclasses.asdict(stream.summary)
    kept = {name: known[name] for name in ("fps", "height", "width", "frames", "warnings")}
    writer.end_video({"id": item.id, "path": path, "label": item.label, **kept})
    return stream.summary


def _blame_the_video(stream: TubeletStream) -> Iterator[TubeletTargets]:
    """The stream; whatever goes wrong in it, though not in the writer, is the video's fault."""
    try:
        yield from stream
    except MMEError:
        raise
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".strip(": ")
        raise VideoError(f"internal error while it was extracted: {text}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def main(argv: list[str]) -> int:
    """The child process: shards until the socket closes."""
    _die_with_parent(int(argv[1]))
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    with socket.socket(fileno=int(argv[0])) as channel, channel.makefile("rw") as lines:

        def report(message: dict[str, Any]) -> None:
            lines.write(json.dumps(message) + "\n")
            lines.flush()

        for line in lines:
            try:
                write_shard(ShardJob.from_json(line), report)
            except MMEError as error:
                report({"error": [type(error).__name__, str(error)]})
            except Exception as error:  # a fault of this program, and no video's
                traceback.print_exc()
                report({"error": ["MMEError", f"internal error: {type(error).__name__}: {error}"]})
    return 0


def _die_with_parent(parent: int) -> None:
    """Linux: no orphan goes on writing when the parent is killed, even from inside a hang."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
