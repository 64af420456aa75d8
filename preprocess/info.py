"""Prints what a store holds.

mme info STORE [--json] [--videos 10]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mme_core.errors import UsageError
from mme_core.io.place import Place, open_place
from mme_core.parser import CommandParser
from mme_core.report.words import duration, size
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.store.layout import layouts, shard_name
from mme_core.store.leftovers import leftovers
from mme_core.store.table import shard_numbers
from mme_core.terminal import plain, styled
from preprocess.summary import describe_spec


def describe(url: str) -> dict[str, Any]:
    """Everything that `mme info` prints, as JSON values. Raises StoreError if there is no store."""
    store, place = TargetStore(url), open_place(url)
    left = leftovers(url)
    numbers = [number for number in shard_numbers(place) if shard_name(number) not in left]
    reasons = Counter(store.quarantined().values())
    videos = store.videos
    tubelets, sizes = int(videos["count"].sum()), _sizes(place, numbers, store)
    timed = videos["fps"] > 0
    return {
        "store": store.url,
        "dataset": store.dataset,
        "split": store.split,
        "videos": len(videos),
        "quarantined": dict(reasons.most_common()),
        "with_warnings": sum(map(bool, videos["warnings"])),
        "frames": int(videos["frames"].sum()),
        "hours": float((videos["frames"][timed] / videos["fps"][timed]).sum() / 3600),
        "tubelets": tubelets,
        "tubelets_per_video": _spread(videos["count"].tolist()),
        "canvases": _canvases(store),
        "classes": _classes(store),
        "shards": len(numbers),
        "unfinished": left,
        "bytes": sizes,
        "mb_per_8_tubelets": {
            name: round(8e-6 * size / tubelets, 4) for name, size in sizes.items()
        },
        "spec": store.spec.to_dict(),
        "spec_hash": store.spec.hash,
        "made_by": store.made_by,
    }


def _spread(counts: list[int]) -> dict[str, int]:
    ordered = sorted(counts)
    return {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1]}


def _canvases(store: TargetStore) -> dict[str, int]:
    """Number of videos for each canvas size in patches, the most frequent first."""
    sizes = Counter(zip(store.videos["hp"].tolist(), store.videos["wp"].tolist()))
    return {f"{hp}×{wp}": count for (hp, wp), count in sizes.most_common()}


def _classes(store: TargetStore) -> dict[str, int]:
    """Number of videos for each class name (each label, without names), in order of the labels."""
    counts, names = Counter(store.videos["label"].tolist()), store.class_names
    labels = range(len(names)) if names else sorted(counts)
    unlabelled = {"(none)": counts[-1]} if counts[-1] else {}
    named = {names[n] if names else str(n): counts[n] for n in labels if n >= 0}
    return named | unlabelled


def _sizes(place: Place, numbers: list[int], store: TargetStore) -> dict[str, int]:
    """Bytes of each array, summed over all shards."""
    sizes = dict.fromkeys(layouts(store.spec), 0)
    finished = {shard_name(number).removeprefix("shards/") for number in numbers}
    for name, count in place.files("shards").items():
        shard, array = name.split("/")[:2]
        if shard in finished and array in sizes:
            sizes[array] += count
    return sizes


def _span(spread: dict[str, Any]) -> str:
    """Such as "12", or "9 to 22, median 18"."""
    if spread["least"] == spread["most"]:
        return str(spread["least"])
    return f"{spread['least']} to {spread['most']}, median {spread['median']}"


def _print(about: dict[str, Any], console: Console) -> None:
    def listed(counts: dict[str, int], most: int = 6) -> str:
        parts = [f"{name} ({count})" for name, count in list(counts.items())[:most]]
        more = len(counts) - most
        return ", ".join(parts) + (f", and {more} more" if more > 0 else "") if counts else "none"

    per_clip, total = about["mb_per_8_tubelets"], sum(about["bytes"].values())
    targets = sum(size for name, size in per_clip.items() if not name.startswith("frame"))
    spread = about["tubelets_per_video"]
    quarantined = sum(about["quarantined"].values())
    rows = {
        "store": about["store"],
        "data set": about["dataset"] + (f", split {about['split']}" if about["split"] else ""),
        "videos": f"{about['videos']:,} stored, {quarantined:,} quarantined, "
        f"{about['with_warnings']:,} with warnings",
        "quarantined": listed(about["quarantined"]),
        "length": f"{about['frames']:,} frames, {duration(about['hours'] * 3600)}",
        "tubelets": f"{about['tubelets']:,}; a video has {_span(spread)}",
        "canvases": f"{listed(about['canvases'])}, in patches",
        "classes": f"{len(about['classes'])}: {listed(about['classes'])}",
        "shards": f"{about['shards']:,}"
        + (f", and {len(about['unfinished'])} unfinished" if about["unfinished"] else ""),
        "size": f"{size(total)}; 8 tubelets take {targets:.3f} MB of targets, "
        f"{sum(per_clip.values()):.3f} MB with frames",
        "arrays": ", ".join(f"{name} {size(count)}" for name, count in about["bytes"].items()),
        "spec": describe_spec(TargetSpec.from_dict(about["spec"])),
        "spec hash": about["spec_hash"],
        "made by": ", ".join(f"{name} {version}" for name, version in about["made_by"].items()),
    }
    if not quarantined:
        del rows["quarantined"]
    if not console.is_terminal:
        for name, text in rows.items():
            print(plain(f"{name:<12}{text}"))
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    for name, text in rows.items():
        table.add_row(name, styled(text))
    console.print(table)


def _print_videos(url: str, count: int, console: Console) -> None:
    """Prints the first `count` rows of the table of videos."""
    videos = TargetStore(url).videos
    columns = ("id", "label", "count", "hp", "wp", "fps", "frames", "shard", "warnings")
    table = Table(*columns)
    if not console.is_terminal:
        print(*columns, sep="\t")
    for row in list(videos.part(0, count)):
        fields = [f"{row[c]:.2f}" if c == "fps" else row[c] for c in columns[:-1]]
        fields.append("; ".join(row["warnings"]))
        if console.is_terminal:
            table.add_row(*map(styled, fields))
        else:
            print(*map(plain, fields), sep="\t")
    if console.is_terminal:
        console.print(table)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit status."""
    parser = CommandParser("info", __doc__)
    parser.add_argument("store", metavar="STORE", help="folder or URL of the store")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    videos_help = "also list the first N videos"
    parser.add_argument("--videos", type=int, default=0, metavar="N", help=videos_help)
    args = parser.parse_args(argv)
    if args.videos < 0:
        raise UsageError(f"--videos {args.videos} must not be negative")
    about, console = describe(args.store), Console(file=sys.stdout)
    if args.json:
        if args.videos:
            about["rows"] = list(TargetStore(args.store).videos.part(0, args.videos))
        print(json.dumps(about, indent=2))
        return 0
    _print(about, console)
    if args.videos:
        _print_videos(args.store, args.videos, console)
    return 0
