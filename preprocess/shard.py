"""Writes one shard: stores or quarantines each of its videos."""

from __future__ import annotations

import dataclasses
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mme_core.datasets import VideoItem
from mme_core.errors import MMEError, StoreError, UrlError, UsageError, VideoError
from mme_core.io.remote import is_url, relative, server_of
from preprocess.jobs import OK, QUARANTINED, Outcome, ShardJob
from preprocess.lock import check_owner

if TYPE_CHECKING:
    from mme_core.extract.results import TubeletTargets, VideoSummary
    from mme_core.extract.stages import Stopwatch
    from mme_core.extract.video_targets import TubeletStream
    from mme_core.store import TargetStore
    from mme_core.store.writer import ShardWriter
    from preprocess.stored_frames import StoredFrames


def write_shard(job: ShardJob, report: Callable[[dict[str, Any]], None]) -> None:
    """Writes the shard and reports each step. Raises MMEError if the run must stop."""
    from mme_core.extract import video_targets  # noqa: F401 – else its imports count for a video
    from mme_core.io.place import open_place
    from mme_core.store.writer import ShardWriter

    _check_shared_disk(job)
    try:
        check = partial(check_owner, open_place(job.store), job.lock) if job.lock else None
        with ShardWriter(job.store, job.number, job.spec, job.keep_flow, check) as writer:
            for item in job.items:
                report({"begin": item.id})
                report({"outcome": dataclasses.asdict(_process(item, job, writer))})
    except OSError as error:
        raise StoreError(
            f"cannot write to {job.store}: {error.strerror or error}; mend that and run the same "
            "command again"
        ) from error
    report({"done": True})


def _check_shared_disk(job: ShardJob) -> None:
    """Raises an error if this machine does not see the folders of the store and the videos."""
    from mme_core.io.place import open_place
    from mme_core.store.layout import STORE

    where = socket.gethostname()
    if not open_place(job.store).exists(STORE):
        raise StoreError(f"{where} does not see the store {job.store}: it must be on a shared disk")
    if not is_url(job.root) and not Path(job.root).is_dir():
        raise UsageError(f"{where} does not see the videos ({job.root}): share that disk")


def _process(item: VideoItem, job: ShardJob, writer: ShardWriter) -> Outcome:
    from mme_core.extract.stages import Stopwatch

    started, stopwatch = time.monotonic(), Stopwatch()
    path = relative(item.path, job.root)

    def outcome(**values: Any) -> Outcome:
        seconds = round(time.monotonic() - started, 3)
        return Outcome(
            path=item.path,
            id=item.id,
            seconds=seconds,
            shard=job.number,
            label=item.label,
            stages={name: round(spent, 3) for name, spent in stopwatch.seconds.items()},
            **values,
        )

    try:
        if item.id in job.poison:
            raise VideoError(job.poison[item.id])
        summary = _store(item, path, job, writer, stopwatch)
    except VideoError as error:
        _check_readable(item, job)
        reason = _one_line(error)
        writer.quarantine({"id": item.id, "path": path, "label": item.label, "reason": reason})
        return outcome(status=QUARANTINED, reason=reason)
    fps = summary.fps
    return outcome(
        status=OK, frames=summary.frames, duration=round(summary.frames / fps, 3) if fps else 0.0
    )


def _check_readable(item: VideoItem, job: ShardJob) -> None:
    """Raises StoreError for a video that has kept flow and whose file cannot be opened.

    A disk may be missing. The video must not be quarantined for it, since `mme retarget` does not
    try a quarantined one again.
    """
    from mme_core.io.video import open_video

    if not job.kept or item.id in job.poison:
        return
    try:
        with open_video(item.path):
            return
    except (VideoError, UrlError) as error:
        raise StoreError(
            f"{item.path}, whose flow is in {job.kept}: {_one_line(error)}; put the video back or "
            "give its folder by --root, and run the same command again"
        ) from error


def _store(
    item: VideoItem, path: str, job: ShardJob, writer: ShardWriter, stopwatch: Stopwatch
) -> VideoSummary:
    """Extracts a video into the shard. If it raises VideoError, the shard is as it was before."""
    from mme_core.extract.kept_flow import KeptFlow
    from mme_core.extract.video_targets import stream_tubelets

    keep = writer.keep if job.keep_flow else None
    with KeptFlow(job.kept, item.id) if job.kept else nullcontext() as kept:
        stream = stream_tubelets(
            item.path,
            job.spec,
            job.timeout,
            kept=kept,
            keep=keep,
            stored=_stored_frames(item, job),
            stopwatch=stopwatch,
        )
        _append_video(stream, writer, item, job)
    summary = stream.summary
    assert summary is not None  # set once the stream has ended
    known = dataclasses.asdict(summary)
    row = {name: known[name] for name in ("fps", "height", "width", "frames", "warnings")}
    about = {"id": item.id, "path": path, "label": item.label, **row}
    writer.end_video(about, summary.first_frame)
    return summary


def _stored_frames(item: VideoItem, job: ShardJob) -> StoredFrames | None:
    """The video's frames in the store with the kept flow; None where they cannot be used."""
    from preprocess.stored_frames import StoredFrames, can_be_copied

    if not job.kept:
        return None
    store, rows = _source(str(Path(job.kept).parents[1]))
    if item.id not in rows or not can_be_copied(store.spec, job.spec):
        return None
    return StoredFrames(store, rows[item.id])


@lru_cache(maxsize=1)
def _source(url: str) -> tuple[TargetStore, dict[str, int]]:
    """A store, and the row of each of its videos."""
    from mme_core.store import TargetStore

    store = TargetStore(url)
    return store, {name: row for row, name in enumerate(store.videos["id"].tolist())}


def _append_video(
    stream: TubeletStream, writer: ShardWriter, item: VideoItem, job: ShardJob
) -> None:
    from mme_core.extract.video_targets import LaterPartError

    writer.begin_video()
    try:
        try:
            _append(stream, writer, item, job)
        except LaterPartError:
            writer.abandon_video()
            writer.begin_video()
            _append(stream, writer, item, job)
    except VideoError:
        writer.abandon_video()
        raise


def _append(stream: TubeletStream, writer: ShardWriter, item: VideoItem, job: ShardJob) -> None:
    append = stream.stopwatch.calls("writing", writer.append)
    for tubelet in _blame_the_server(_blame_the_video(stream), item, job):
        append(tubelet)


def _blame_the_video(stream: TubeletStream) -> Iterator[TubeletTargets]:
    """The stream. Its unexpected errors become VideoError; errors of the writer do not."""
    try:
        yield from stream
    except MMEError:
        raise
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".strip(": ")
        raise VideoError(f"internal error while it was extracted: {text}") from error


def _blame_the_server(
    tubelets: Iterator[TubeletTargets], item: VideoItem, job: ShardJob
) -> Iterator[TubeletTargets]:
    """The tubelets. An unreadable URL stops the run if its server holds other videos too.

    Then the server may be down, and would take all of them with it. The only video of a server, and
    a URL that cannot be right, is to blame itself.
    """
    try:
        yield from tubelets
    except UrlError as error:
        server = server_of(item.path)
        if not server or server == server_of(job.root) or server in job.servers:
            raise
        raise VideoError(str(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
