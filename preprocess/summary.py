"""What `mme flows` says before and after the work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from mme_core.io.place import Place
from mme_core.spec import TargetSpec
from mme_core.store.layout import shard_name
from preprocess.jobs import OK, QUARANTINED, Outcome


def describe_spec(spec: TargetSpec) -> str:
    """Every field, those that differ from the default first."""
    default = TargetSpec().to_dict()
    fields = sorted(spec.to_dict().items(), key=lambda field: field[1] == default[field[0]])
    return " ".join(f"{name}={value}" for name, value in fields)


def estimate(known: Iterable[Outcome], videos: int, workers: int) -> str | None:
    """How long `videos` take, from the seconds of those that are done; None without any."""
    seconds = [row.seconds for row in known if row.seconds is not None]
    if not seconds:
        return None
    each = sum(seconds) / len(seconds)
    whole = each * videos
    left = clock(whole / workers)
    return f"{each:.2f} s a video so far: {whole / 3600:.3g} core-hours, {left} to go"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03 or 0:42."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def summarise(rows: Iterable[Outcome], wanted: Collection[str]) -> list[str]:
    """Lines on what the ledger says about the videos `wanted`: stored, quarantined and why."""
    stored = hours = 0
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.id not in wanted:
            continue
        if row.status == OK:
            stored, hours = stored + 1, hours + row.duration / 3600
        elif row.status == QUARANTINED:
            reasons[row.reason].append(row.id)
    quarantined = sum(map(len, reasons.values()))
    lines = [
        f"stored       {stored} videos, {hours:.3g} hours",
        f"quarantined  {quarantined} videos",
    ]
    for reason, ids in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        more = ", …" if len(ids) > 1 else ""
        lines.append(f"  {len(ids):>5} × {reason}  ({ids[0]}{more})")
    missing = len(wanted) - stored - quarantined
    return lines + ([f"missing      {missing} videos: run again"] if missing else [])


def run_line(frames: int, seconds: float, shards: Iterable[int], place: Place) -> str:
    """What this run did."""
    rate = frames / max(seconds, 1e-3)
    with ThreadPoolExecutor(place.parallel_reads) as pool:
        size = sum(pool.map(lambda number: sum(place.files(shard_name(number)).values()), shards))
    line = f"this run     {frames} frames in {seconds:.1f} s: {rate:.0f} frames/s"
    return f"{line}, {size / 1e6:.1f} MB"
