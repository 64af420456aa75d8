"""The lines that `mme flows` prints before and after its work."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from mme_core.io.place import Place
from mme_core.progress import clock
from mme_core.report.words import counted, duration, size
from mme_core.spec import TargetSpec
from mme_core.store.layout import shard_name
from preprocess.jobs import OK, QUARANTINED, Outcome


def describe_spec(spec: TargetSpec) -> str:
    """All fields of the specification; those that differ from the defaults come first."""
    default = TargetSpec().to_dict()
    fields = sorted(spec.to_dict().items(), key=lambda field: field[1] == default.get(field[0]))
    return " ".join(
        f"{name}={','.join(value) if isinstance(value, tuple) else value}" for name, value in fields
    )


def core_unit(hours: float) -> tuple[float, str]:
    """The unit to show this processor time in: (units in an hour, name of the unit)."""
    return (1, "core-hours") if hours >= 0.1 else (3600, "core-seconds")


def estimate(known: Iterable[Outcome], videos: int, workers: int | None) -> str | None:
    """The expected time for `videos` more videos; None if no processing time is known yet.

    workers  number of processes; None: unknown, and so is the time until the end
    """
    seconds = [row.seconds for row in known if row.seconds is not None]
    if not seconds:
        return None
    each = sum(seconds) / len(seconds)
    whole = each * videos
    an_hour, unit = core_unit(whole / 3600)
    left = "" if workers is None else f", {clock(whole / workers)} to go"
    return f"{each:.2f} s a video so far: {whole / 3600 * an_hour:.3g} {unit}{left}"


def summarise(rows: Iterable[Outcome], wanted: Collection[str]) -> list[str]:
    """Lines on the chosen videos (ids in `wanted`): how many are stored or quarantined, and why."""
    stored, seconds = 0, 0.0
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.id not in wanted:
            continue
        if row.status == OK:
            stored, seconds = stored + 1, seconds + row.duration
        elif row.status == QUARANTINED:
            reasons[row.reason].append(row.id)
    quarantined = sum(map(len, reasons.values()))
    lines = [
        f"stored       {counted(stored, 'video')}, {duration(seconds)} of video",
        f"quarantined  {counted(quarantined, 'video')}",
    ]
    for reason, ids in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        more = ", …" if len(ids) > 1 else ""
        lines.append(f"  {len(ids):>5} × {reason}  ({ids[0]}{more})")
    missing = len(wanted) - stored - quarantined
    return lines + ([f"missing      {counted(missing, 'video')}: run again"] if missing else [])


def describe_lost(rows: Iterable[Outcome], store: str) -> list[str]:
    """Lines on the videos of missing shards that the run does not make again."""
    counts = Counter(row.shard for row in rows)
    return [
        f"lost         {shard_name(number)} is not there, and this run is not for "
        f"{counted(count, 'video')} of it: the ledger keeps their rows; `mme repair {store}` makes "
        "the shard anew"
        for number, count in sorted(counts.items())
    ]


def run_line(frames: int, seconds: float, shards: Iterable[int], place: Place) -> str:
    """The line on this run: its frames, time, speed, and bytes of its shards."""
    rate = frames / max(seconds, 1e-3)
    with ThreadPoolExecutor(place.parallel_reads) as pool:
        count = sum(pool.map(lambda number: sum(place.files(shard_name(number)).values()), shards))
    line = f"this run     {frames} frames in {seconds:.1f} s: {rate:.0f} frames/s"
    return f"{line}, {size(count)}"
