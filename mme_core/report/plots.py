"""Plots as SVG: histograms, curves, a confusion matrix, shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mme_core.report.html import Html, join, tag
from mme_core.report.style import SERIES

_WIDTH, _HEIGHT = 340, 190  # of a plot, SVG units; about CSS pixels on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 8, 24  # around the axes
_MOST_POINTS = 300  # of a curve; more would not be seen


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    name    for the legend
    x, y    of equal length; points that are not finite are left out
    colour  CSS colour
    dashed  for a line that is compared with, such as a constant's loss
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False


def colour(number: int) -> str:
    """The colour of a series by its number."""
    return SERIES[number % len(SERIES)]


def number(value: float) -> str:
    """A number with three significant digits, such as 0.0312, 12.3 or 1,230."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.{2 - math.floor(math.log10(abs(value)))}f}"
        if abs(value) > 1e-4
        else f"{value:.2e}"
    )


def ticks(low: float, high: float, count: int = 4, whole: bool = False) -> list[float]:
    """About `count` round numbers in low … high; whole=True: whole numbers alone."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda size: abs(size - rough))
    step = max(round(step), 1) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def histogram(values: np.ndarray, title: str, unit: str, *, bins: int = 24, note: str = "") -> Html:
    """How many values lie where; the highest percent, if far out, is counted in the last bar.

    values  numbers [N]; those that are not finite are left out
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return _figure(title, tag("p", "no values", class_="note"))
    low, high = float(values.min()), float(values.max())
    cut = float(np.quantile(values, 0.99))
    clipped = high > low and high - low > 2 * (cut - low) > 0
    top = cut if clipped else high
    if math.isclose(low, top):  # also where rounding alone makes them differ
        low, top, bins = low - 0.5, low + 0.5, 9
    counts, edges = np.histogram(np.minimum(values, top), bins, (low, top))
    axes = _Axes((low, top), (0, float(counts.max())), counts=True)
    bars = [
        tag(
            "rect",
            tag("title", f"{number(a)} – {number(b)} {unit}: {count}"),
            class_="bar",
            x=_round(axes.x(a) + 0.5),
            y=_round(axes.y(count)),
            width=_round(max(axes.x(b) - axes.x(a) - 1, 0.5)),
            height=_round(axes.y(0) - axes.y(count)),
        )
        for count, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist())
        if count
    ]
    median = f"median {number(float(np.median(values)))} {unit}"
    tail = f"; the last bar holds all up to {number(high)}" if clipped else ""
    return _figure(title, axes.svg(bars), note=f"{median}{tail}{f'; {note}' if note else ''}")


def curves(title: str, lines: Sequence[Curve], *, zero: bool = False, note: str = "") -> Html:
    """Lines over a common axis, with a legend that has the last value of each.

    zero  whether the vertical axis starts at 0
    """
    drawn = [(line, *_finite(line)) for line in lines]
    drawn = [(line, x, y) for line, x, y in drawn if x.size]
    if not drawn:
        return _figure(title, tag("p", "no values", class_="note"))
    all_x, all_y = (np.concatenate([row[place] for row in drawn]) for place in (1, 2))
    low = 0.0 if zero else float(all_y.min())
    high = float(np.quantile(all_y, 0.995)) if all_y.size > 50 else float(all_y.max())
    if not high > low:
        low, high = low - abs(low) * 0.05 - 1e-9, low + abs(low) * 0.05 + 1e-9
    room = 0 if zero else 0.04 * (high - low)
    axes = _Axes((float(all_x.min()), float(all_x.max())), (low - room, high + 0.04 * (high - low)))
    marks: list[Html] = []
    for line, x, y in drawn:
        places = zip(axes.x(x).tolist(), axes.y(np.clip(y, low - room, None)).tolist())
        way = "L".join(f"{_round(a)} {_round(max(b, 1))}" for a, b in places)
        kind = "curve dashed" if line.dashed else "curve"
        if len(x) == 1:
            marks.append(
                tag(
                    "circle",
                    cx=_round(axes.x(x[0])),
                    cy=_round(axes.y(y[0])),
                    r=3,
                    fill=line.colour,
                )
            )
        marks.append(
            tag("path", tag("title", line.name), d=f"M{way}", class_=kind, stroke=line.colour)
        )
    legend = tag(
        "ul",
        *(
            tag(
                "li",
                tag(
                    "i",
                    class_="dashed" if line.dashed else None,
                    style=f"border-color:{line.colour}",
                ),
                f"{line.name} {number(float(y[-1]))}",
            )
            for line, x, y in drawn
        ),
        class_="legend",
    )
    return _figure(title, axes.svg(marks), legend, note=note)


def _finite(line: Curve) -> tuple[np.ndarray, np.ndarray]:
    """The finite points; the mean of neighbours where there are more than can be seen."""
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if x.size <= _MOST_POINTS:
        return x, y
    parts = np.array_split(np.arange(x.size), _MOST_POINTS)
    means = np.array([y[part].mean() for part in parts])
    ends = np.array([x[part[-1]] for part in parts])
    return np.concatenate([x[:1], ends]), np.concatenate([y[:1], means])


class _Axes:
    """The scales of a plot; `counts`: the vertical one counts things."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], counts: bool = False
    ) -> None:
        self._x, self._y, self._counts = x, y, counts

    def x(self, value: Any) -> Any:
        """The place of a number or of an array of numbers."""
        low, high = self._x
        return _LEFT + (value - low) / ((high - low) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: Any) -> Any:
        low, high = self._y
        return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    def svg(self, marks: Sequence[Html]) -> Html:
        parts = []
        for value in ticks(*self._y, whole=self._counts):
            y = _round(self.y(value))
            parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="axis"))
            parts.append(_label(_LEFT - 5, float(y) + 4, _tick(value), "end"))
        for value in ticks(*self._x):
            parts.append(_label(float(_round(self.x(value))), _HEIGHT - 8, _tick(value), "middle"))
        return tag("svg", *parts, *marks, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")


def _label(x: float, y: float, words: str, anchor: str, **more: str) -> Html:
    return tag("text", words, x=_round(x), y=_round(y), text_anchor=anchor, **more)


def _tick(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:g}"


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def confusion(counts: np.ndarray, names: Sequence[str]) -> Html:
    """The matrix of true classes (rows) and predicted classes, shaded by the share of the row."""
    classes = len(names)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    labels = classes <= 24
    left = min(6.2 * max(map(len, names), default=0), 130) + 8 if labels else 8
    side = 400 / max(classes, 1)
    width, height = left + 400 + 8, 400 + (left if labels else 8) + 4
    parts = []
    for true, predicted in zip(*np.nonzero(counts)):
        value = share[true, predicted]
        x, y = left + predicted * side, true * side
        words = f"{names[true]} as {names[predicted]}: {counts[true, predicted]} ({value:.0%})"
        parts.append(
            tag(
                "rect", tag("title", words), x=_round(x), y=_round(y), width=_round(side),
                height=_round(side), fill=SERIES[0], fill_opacity=f"{0.08 + 0.92 * value:.2f}",
            )
        )  # fmt: skip
        if classes <= 12:
            shade = "#fff" if value > 0.5 else "var(--ink)"
            middle, words = x + side / 2, str(counts[true, predicted])
            parts.append(_label(middle, y + side / 2 + 4, words, "middle", style=f"fill:{shade}"))
    if labels:
        for place, name in enumerate(names):
            middle = (place + 0.5) * side
            short = name if len(name) <= 20 else f"{name[:19]}…"
            parts.append(_label(left - 5, middle + 4, short, "end"))
            x = _round(left + middle + 4)
            turned = f"rotate(-90 {x} 406)"
            parts.append(_label(float(x), 406, short, "end", transform=turned))
    frame = tag("rect", x=_round(left), y=0, width=400, height=400, fill="none", class_="axis")
    return tag(
        "svg", frame, *parts, viewBox=f"0 0 {_round(width)} {_round(height)}", role="img"
    )  # fmt: skip


def scatter(points: np.ndarray, groups: Sequence[int], titles: Sequence[str]) -> Html:
    """Points in a plane without axes: [N, 2], the number of each point's group, and its title."""
    low, high = points.min(0), points.max(0)
    places = (points - low) / np.maximum(high - low, 1e-12)
    parts = [
        tag(
            "circle",
            tag("title", title),
            cx=_round(8 + 384 * x),
            cy=_round(8 + 284 * (1 - y)),
            r=4,
            fill=colour(group),
            fill_opacity="0.75",
        )
        for (x, y), group, title in zip(places.tolist(), groups, titles)
    ]
    return tag("svg", *parts, viewBox="0 0 400 300", role="img")


def legend(names: Sequence[str]) -> Html:
    """The names of groups with their colours."""
    items = (
        tag("li", tag("i", style=f"border-color:{colour(place)}"), name)
        for place, name in enumerate(names)
    )
    return tag("ul", *items, class_="legend")


def share_bar(share: float) -> Html:
    """A short bar for a share in 0 … 1, and the share in percent."""
    wide = f"width:{100 * min(max(share, 0), 1):.1f}%"
    return join([tag("span", tag("i", style=wide), class_="share"), f"{share:.1%}"])


def counts_table_rows(counts: Mapping[str, int]) -> list[tuple[str, Html, str]]:
    """Rows (name, bar, number) of counted names, the most frequent first."""
    total = max(sum(counts.values()), 1)
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return [(name, share_bar(count / total), f"{count:,}") for name, count in ordered]


def _figure(title: str, *content: Html, note: str = "") -> Html:
    caption = tag("figcaption", note) if note else ""
    return tag("figure", tag("b", title), *content, caption, class_="plot")
