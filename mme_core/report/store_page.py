"""The page on a store: what it holds, how it was made, what looks wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mme_core.extract.stages import STAGES
from mme_core.report.html import (
    Html,
    details,
    grid,
    join,
    message,
    page,
    section,
    table,
    tag,
    tiles,
)
from mme_core.report.plots import counts_table_rows, histogram, number
from mme_core.report.remarks import Remark, remarks
from mme_core.report.survey import Measured
from mme_core.report.words import counted, describe_spec, duration, kind_of, size
from mme_core.store import TargetStore

_LISTED = 50  # ids of one list


@dataclass
class Timing:
    """How long stage 1 took for the videos whose time is in the ledger.

    stored       {id: seconds}
    quarantined  {id: seconds}
    stages       {id: {name of STAGES: seconds}}, of the stored videos whose rows have them
    """

    stored: dict[str, float] = field(default_factory=dict)
    quarantined: dict[str, float] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def store_page(
    store: TargetStore,
    about: Mapping[str, Any],
    measured: Sequence[Measured],
    films: Sequence[Html],
    timing: Timing,
) -> str:
    """The page as HTML.

    about        what `mme info --json` prints
    measured     a sample of the videos
    films        figures for the gallery
    """
    found = remarks(store.videos, measured, store.spec.clip_step)
    parts = [
        _summary(store, about, found),
        _specification(store),
        _histograms(store, measured),
        section(
            "Tracked points",
            grid(films, 165),
            note="Hue: direction; saturation: speed. The films run at a slow, constant rate, from "
            "the slowest sampled videos to the fastest.",
        ),
        _warnings(found),
        _quarantine(store.quarantined(), len(store.videos)),
        _timing(store, timing),
    ]
    classes = about["classes"]
    if len(classes) > 1:
        rows = counts_table_rows(classes)
        parts.append(section("Classes", table(("class", "share", "videos"), rows, 1)))
    name = store.url.rstrip("/").rpartition("/")[2]
    return page(f"Store {name}", store.url, parts)


def _summary(store: TargetStore, about: Mapping[str, Any], found: Sequence[Remark]) -> Html:
    quarantined = sum(about["quarantined"].values())
    numbers = {
        "videos stored": f"{about['videos']:,}",
        "videos quarantined": f"{quarantined:,}",
        "of video": duration(about["hours"] * 3600),
        "tubelets": f"{about['tubelets']:,}",
        "on disk": size(sum(about["bytes"].values())),
        "shards": f"{about['shards']:,}",
    }
    split = f", split {about['split']}" if about["split"] else ""
    canvases = [f"{name} ({count})" for name, count in about["canvases"].items()]
    rows = [
        ("data set", f"{about['dataset']}{split}"),
        ("canvases, in patches", ", ".join(canvases[:6])),
        ("arrays", ", ".join(f"{name} {size(count)}" for name, count in about["bytes"].items())),
        ("made by", ", ".join(f"{name} {version}" for name, version in about["made_by"].items())),
        ("specification hash", about["spec_hash"]),
    ]
    if about["unfinished"]:
        rows.append(("unfinished shards", str(len(about["unfinished"]))))
    if found:
        lines = [tag("p", remark.title) for remark in found]
        verdict = message("warning", tag("p", tag("b", "Worth a look")), *lines)
    else:
        verdict = message("good", tag("p", "Nothing looks wrong."))
    return section("Summary", tiles(numbers), verdict, table(("", ""), rows))


def _specification(store: TargetStore) -> Html:
    sentences = [tag("p", sentence) for sentence in describe_spec(store.spec)]
    fields = [(f"spec.{name}", str(value)) for name, value in store.spec.to_dict().items()]
    return section(
        "Specification", *sentences, details("All fields", table(("field", "value"), fields))
    )


def _histograms(store: TargetStore, measured: Sequence[Measured]) -> Html:
    videos = store.videos
    timed = videos["fps"] > 0
    lengths = videos["frames"][timed] / videos["fps"][timed]
    sampled = f"a sample of {len(measured):,} videos" if len(measured) < len(videos) else ""

    def of_sample(name: str, title: str, unit: str, scale: float = 1) -> Html:
        values = np.array([getattr(one, name) for one in measured]) * scale
        return histogram(values, title, unit, note=sampled)

    figures = [
        of_sample("speed", "Motion of a video", "px a frame"),
        of_sample("moving", "Patches that move", "%", 100),
        of_sample("valid", "Valid trajectories", "%", 100),
        histogram(lengths, "Length", "s"),
        histogram(videos["fps"][timed], "Frame rate", "fps"),
        histogram(np.minimum(videos["height"], videos["width"]), "Shorter side of the frame", "px"),
        histogram(videos["width"] / np.maximum(videos["height"], 1), "Width / height", ""),
        histogram(videos["count"], "Tubelets of a video", ""),
    ]
    return section("Distributions", grid(figures), note="Each bar counts videos.")


def _warnings(found: Sequence[Remark]) -> Html:
    if not found:
        return section("Warnings", tag("p", "None."))
    boxes = [
        message(
            "warning",
            tag("p", tag("b", remark.title)),
            tag("p", remark.advice),
            details("Which", id_list(remark.videos)),
        )
        for remark in found
    ]
    return section(
        "Warnings", grid(boxes, 340), note="Found by simple rules: look before you remove videos."
    )


def id_list(names: Sequence[str]) -> Html:
    """The first names as a list, and how many more there are."""
    items = [tag("li", name, class_="id") for name in names[:_LISTED]]
    more = len(names) - len(items)
    return join(
        [tag("ul", *items, class_="ids"), tag("p", f"and {more:,} more") if more > 0 else ""]
    )


def _quarantine(quarantined: Mapping[str, str], stored: int) -> Html:
    if not quarantined:
        return section("Quarantined videos", tag("p", "None: every video is stored."))
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, reason in quarantined.items():
        groups[kind_of(reason)].append((name, reason))
    boxes = []
    for kind, rows in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        # one reason in full where all are the same
        title = rows[0][1] if len({reason for _, reason in rows}) == 1 else kind
        shown = table(("video", "reason"), rows[:_LISTED])
        more = len(rows) - _LISTED
        rest = tag("p", f"and {more:,} more: see ledger.jsonl") if more > 0 else ""
        boxes.append(details(f"{len(rows):,} × {title}", shown, rest))
    share = len(quarantined) / (len(quarantined) + stored)
    note = f"Left out: {counted(len(quarantined), 'video')}, {share:.1%} of all."
    return section("Quarantined videos", *boxes, note=note)


def _timing(store: TargetStore, timing: Timing) -> Html:
    stored, lost = sum(timing.stored.values()), sum(timing.quarantined.values())
    if not timing.stored:
        note = "The ledger of this store has no times: it was lost and rebuilt from the shards."
        return section("Timing of stage 1", tag("p", note))
    rows = np.array([store.videos.find(name) for name in timing.stored])
    seconds = np.array(list(timing.stored.values()))
    frames = np.maximum(store.videos["frames"][rows], 1)
    cost = 1000 * seconds / frames
    numbers = {
        "core time, stored videos": duration(stored),
        "core time, quarantined": duration(lost),
        "ms a raw frame (median)": number(float(np.median(cost))),
        "a video (median)": duration(float(np.median(seconds))),
    }
    slowest = [
        (store.videos["id"][rows[i]], duration(seconds[i]), f"{frames[i]:,}", number(cost[i]))
        for i in np.argsort(-seconds)[:8]
    ]
    figures = [
        histogram(cost, "Cost of a raw frame", "ms"),
        histogram(seconds, "Time of a video", "s"),
    ]
    return section(
        "Timing of stage 1",
        tiles(numbers),
        grid(figures),
        *_by_stage(timing),
        tag("h3", "By size of the frame"),
        table(("frame", "videos", "core time", "ms a frame"), _by_size(store, rows, seconds), 3),
        tag("h3", "Slowest videos"),
        table(("video", "time", "frames", "ms a frame"), slowest, 3),
    )


def _by_stage(timing: Timing) -> list[Html]:
    """Where the core time of the stored videos went; nothing where no row says so."""
    whole = sum(timing.stored[name] for name in timing.stages)
    if not whole:
        return []
    spent = {
        stage: sum(times.get(stage, 0) for times in timing.stages.values()) for stage in STAGES
    }
    spent["other"] = max(whole - sum(spent.values()), 0)
    texts = STAGES | {"other": "what lies between the stages"}
    rows = [
        (stage, texts[stage], duration(time), f"{time / whole:.1%}")
        for stage, time in spent.items()
    ]
    known, stored = len(timing.stages), len(timing.stored)
    of = "" if known == stored else f" ({known:,} of {stored:,} videos)"
    head = ("stage", "what it does", "core time", "share")
    return [tag("h3", f"By stage{of}"), table(head, rows, 2)]


def _by_size(store: TargetStore, rows: np.ndarray, seconds: np.ndarray) -> list[tuple[str, ...]]:
    """One row for each frame size, the most expensive first; at most eight."""
    videos = store.videos
    totals: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0, 0.0, 0])
    for row, spent in zip(rows.tolist(), seconds.tolist()):
        total = totals[int(videos["width"][row]), int(videos["height"][row])]
        total[0] += 1
        total[1] += spent
        total[2] += int(videos["frames"][row])
    ordered = sorted(totals.items(), key=lambda pair: -pair[1][1])[:8]
    return [
        (f"{w} × {h}", f"{count:,.0f}", duration(spent), number(1000 * spent / max(frames, 1)))
        for (w, h), (count, spent, frames) in ordered
    ]
