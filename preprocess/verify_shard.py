"""All checks of one shard, for `mme verify`. Nothing here stops at the first problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mme_core.canvas import plan_canvas
from mme_core.errors import MMEError, StoreError
from mme_core.extract.kept_flow import kept_size, read_shapes
from mme_core.frame_codec import decode_frame
from mme_core.io.place import Place, open_place
from mme_core.spec import TUBELET, TargetSpec
from mme_core.store.array_writer import metadata
from mme_core.store.layout import FLOW, ArrayLayout, flow_name, layouts, shard_name
from mme_core.store.reader import ChunkReader
from mme_core.store.table import COLUMNS, OMITTED, read_attributes

_KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "int64": (int,),
    "float64": (int, float),
    "list": (list,),
}


@dataclass
class ShardReport:
    """What was found in a shard.

    number    number of the shard
    problems  a line for each problem
    ids       ids of the videos in its table
    rows      rows of its table
    tubelets  number of its tubelets
    """

    number: int
    problems: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    tubelets: int = 0


def check_shard(url: str, number: int, spec: TargetSpec, classes: int, deep: bool) -> ShardReport:
    """Reads a whole shard. `classes`: number of class names; `deep`: decode every frame."""
    place, report = open_place(url), ShardReport(number)
    where = place.at(shard_name(number))
    try:
        attributes = read_attributes(place, number)
        if attributes is None:
            raise StoreError(
                f"{where}/zarr.json is missing or empty; `mme repair` makes the shard anew"
            )
        if attributes["spec_hash"] != spec.hash:
            raise StoreError(
                f"{where} was made with another specification than store.json's; `mme repair` "
                "makes the shard anew by store.json. If store.json is the wrong one, remove it and "
                "run `mme flows` with the specification of the shards"
            )
        rows, sizes = attributes["videos"], (attributes["tubelets"], attributes["frame_bytes"])
        table = _check_table(rows, sizes[0], spec, classes)
        report.problems += [f"{where}: {text}" for text in table]
        report.rows, report.tubelets = rows, sizes[0]
        report.ids = [str(row["id"]) for row in rows]
    except StoreError as error:
        report.problems.append(str(error))
        return report
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        damage = f"{where}/zarr.json is damaged ({error!r}); `mme repair` makes it anew"
        report.problems.append(damage)
        return report
    if report.problems:
        return report  # the arrays cannot be judged by a table that is wrong
    check = _ArrayChecks(place, number, spec, rows, sizes)
    found = [*check.files(), *check.metadata(), *check.values(), *check.frames(deep)]
    found += _check_flow(place, number, spec, rows)
    report.problems += dict.fromkeys(found)
    return report


def _check_flow(
    place: Place, number: int, spec: TargetSpec, rows: list[dict[str, Any]]
) -> Iterator[str]:
    """In a store that keeps flow, every stored video must have the flow of all its frame pairs."""
    if not place.exists(FLOW):
        return
    path = place.at(flow_name(number))
    try:
        shapes = read_shapes(path)
    except StoreError as error:
        yield str(error)
        return
    for row in rows:
        top, left, bottom, right = plan_canvas(row["height"], row["width"], spec).region
        expected = (row["frames"] - 1, *kept_size((bottom - top, right - left)), 2)
        if shapes.get(row["id"]) != expected:
            yield (
                f"{path}: the flow of video '{row['id']}' has shape {shapes.get(row['id'])}, and "
                f"should have {expected}; `mme repair` makes it anew"
            )


def _check_table(
    rows: list[dict[str, Any]], tubelets: int, spec: TargetSpec, classes: int
) -> Iterator[str]:
    """Rows must follow each other without a gap, and agree with the specification."""
    first, seen = 0, set()
    for place, row in enumerate(rows):
        wrong = [
            name
            for name, kind in COLUMNS.items()
            if name != "shard" and not isinstance((OMITTED | row).get(name), _KINDS[kind])
        ]
        if wrong:
            yield f"row {place} of the table: {', '.join(wrong)} missing or of the wrong type"
            return
        name = f"video '{row['id']}'"
        if row["id"] in seen:
            yield f"{name} is in the table twice"
        seen.add(row["id"])
        if row["first"] != first:
            yield f"{name} starts at tubelet {row['first']}, not at {first}"
        first = row["first"] + row["count"]
        expected = (row["frames"] - 1 - spec.stride) // spec.hop + 1
        if row["count"] < 1 or row["count"] != expected:
            yield f"{name} has {row['count']} tubelets; {row['frames']} frames make {expected}"
        if row["label"] < -1 or (classes and row["label"] >= classes):
            yield f"{name} has label {row['label']}, but there are {classes} classes"
        try:
            canvas = plan_canvas(row["height"], row["width"], spec)
        except (MMEError, ZeroDivisionError) as error:
            yield f"{name}: {row['width']}×{row['height']} frames have no canvas: {error}"
            continue
        if (canvas.hp, canvas.wp) != (row["hp"], row["wp"]):
            yield (
                f"{name} has {row['hp']}×{row['wp']} patches; {row['width']}×{row['height']} "
                f"frames make {canvas.hp}×{canvas.wp}"
            )
    if first != tubelets:
        yield f"the table ends at tubelet {first}, the shard at {tubelets}"


class _ArrayChecks:
    def __init__(
        self,
        place: Place,
        number: int,
        spec: TargetSpec,
        rows: list[dict[str, Any]],
        sizes: tuple[int, int],
    ) -> None:
        self.place, self.number, self.spec, self.rows = place, number, spec, rows
        self.where = place.at(shard_name(number))
        self.tubelets, self.frame_bytes = sizes
        self.layouts = layouts(spec)
        self.reader = ChunkReader(place)
        counts = [row["count"] for row in rows]
        self.hp = np.repeat([row["hp"] for row in rows], counts).astype(int)
        self.wp = np.repeat([row["wp"] for row in rows], counts).astype(int)

    def length(self, name: str) -> int:
        """Returns the number of rows that an array must have."""
        special = {"frames": self.frame_bytes, "frame_ends": TUBELET * self.tubelets}
        return special.get(name, self.tubelets)

    def files(self) -> Iterator[str]:
        """Yields files that do not belong there. Missing files are found when they are read."""
        folder = shard_name(self.number)
        expected = {"zarr.json", *self.layouts}
        for name in set(self.place.names(folder)) - expected:
            yield f"{self.where}/{name} does not belong there; `mme repair` removes it"
        for name, layout in self.layouts.items():
            files = -(-self.length(name) // layout.file)
            expected = {"zarr.json", *(layout.key(f).split("/")[1] for f in range(files))}
            for extra in sorted(set(self.place.names(f"{folder}/{name}")) - expected):
                yield f"{self.where}/{name}/{extra} does not belong there; `mme repair` removes it"

    def metadata(self) -> Iterator[str]:
        """The metadata, which other readers of Zarr need, must fit how the arrays are written."""
        for name, layout in self.layouts.items():
            file = f"{shard_name(self.number)}/{name}/zarr.json"
            try:
                found = json.loads(self.place.read(file))
            except (OSError, ValueError, RecursionError) as error:
                yield f"{self.place.at(file)} cannot be read ({error}); `mme repair` makes it anew"
                continue
            expected = json.loads(metadata(layout, self.length(name)))
            for text in _changes(found, expected):
                yield f"{self.place.at(file)}: {text}; `mme repair` makes it anew"

    def values(self) -> Iterator[str]:
        """Reads every chunk and checks its content."""
        self._last_end = 0
        for name, layout in self.layouts.items():
            for start in range(0, self.length(name), layout.file):
                stop = min(start + layout.file, self.length(name))
                yield from self._check_rows(layout, start, stop, layout.file)

    def _check_rows(self, layout: ArrayLayout, start: int, stop: int, size: int) -> Iterator[str]:
        """Reads a whole file at once, or where that fails each chunk alone, to find the damage."""
        try:
            rows = self.reader.rows(self.number, layout, start, stop)
        except StoreError as error:
            if size == layout.chunk:
                yield str(error)
                return
            for low in range(start, stop, layout.chunk):
                high = min(low + layout.chunk, stop)
                yield from self._check_rows(layout, low, high, layout.chunk)
            return
        check = self._checks().get(layout.name)
        for problem in check(rows, start) if check else ():
            yield f"{self.where}: array '{layout.name}', rows {start}–{stop - 1}: {problem}"

    def _checks(self) -> dict[str, Callable[[np.ndarray, int], Iterator[str]]]:
        return {
            "position": self._check_patches,
            "shape": self._check_patches,
            "moments": self._check_moments,
            "valid": self._check_valid,
            "homography": _check_finite,
            "frame_ends": self._check_ends,
        }

    def _check_patches(self, rows: np.ndarray, start: int) -> Iterator[str]:
        """Nothing outside of the canvas."""
        P = self.spec.patches
        hp, wp = (size[start : start + len(rows), None] for size in (self.hp, self.wp))
        row, column = np.arange(P) >= hp, np.arange(P) >= wp
        outside = row[:, :, None] | column[:, None, :]
        if rows[outside].any():
            yield "values outside of the video's patches"

    def _check_moments(self, rows: np.ndarray, start: int) -> Iterator[str]:
        yield from self._check_patches(rows, start)
        yield from _check_finite(rows, start)

    def _check_valid(self, rows: np.ndarray, start: int) -> Iterator[str]:
        yield from self._check_patches(rows, start)
        if (rows >= 1 << self.spec.points).any():
            yield f"a bit beyond the {self.spec.points} points"

    def _check_ends(self, rows: np.ndarray, start: int) -> Iterator[str]:
        if (np.diff(rows, prepend=self._last_end) <= 0).any():
            yield "the ends of the frames do not increase"
        self._last_end = rows[-1]
        if start + len(rows) == TUBELET * self.tubelets and rows[-1] != self.frame_bytes:
            yield f"the last frame ends at byte {rows[-1]} of {self.frame_bytes}"

    def frames(self, deep: bool) -> Iterator[str]:
        """The first frame of every video, or all of them, must be images of its canvas."""
        if "frames" not in self.layouts:
            return
        for row in self.rows:
            first = TUBELET * row["first"]
            count = TUBELET * row["count"] if deep else 1
            size = (self.spec.patch * row["hp"], self.spec.patch * row["wp"], 3)
            for frame in range(first, first + count):
                try:
                    found = self._shape(frame)
                except StoreError as error:
                    yield str(error)  # found before: said once
                    continue
                if found != size:
                    kind = "×".join(map(str, found)) or "no image"
                    yield (
                        f"{self.where}: frame {frame - first} of video '{row['id']}' is {kind}, "
                        f"and should be {'×'.join(map(str, size))}"
                    )

    def _shape(self, frame: int) -> tuple[int, ...]:
        """The shape of a frame's image; () where it is none."""
        before = max(frame - 1, 0)
        ends = self.reader.rows(self.number, self.layouts["frame_ends"], before, frame + 1)
        start, stop = (int(ends[0]) if frame else 0), int(ends[-1])
        if not start < stop <= self.frame_bytes:
            return ()
        data = self.reader.rows(self.number, self.layouts["frames"], start, stop)
        try:
            return decode_frame(data).shape
        except ValueError:
            return ()


def _check_finite(rows: np.ndarray, _: int) -> Iterator[str]:
    if not np.isfinite(rows).all():
        yield "numbers that are not finite"


def _changes(found: Any, expected: dict[str, Any]) -> Iterator[str]:
    """Yields what differs between an array's zarr.json and what it should be."""
    if not isinstance(found, dict):
        yield "it is no JSON object"
        return
    for key in [*expected, *(found.keys() - expected.keys())]:
        if found.get(key) != expected.get(key):
            yield f"{key} is {found.get(key)}, and should be {expected.get(key)}"
