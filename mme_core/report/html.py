"""Builds a page of HTML. Text that is not `Html` is foreign, and is always escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from mme_core.report.style import STYLE
from mme_core.terminal import plain

_EMPTY = ("img", "br", "meta", "line", "rect", "path", "circle")  # elements without content


class Html(str):
    """Markup, which goes into a page as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as markup: `Html` as it is, anything else escaped, on one line, valid UTF-8."""
    if isinstance(value, Html):
        return value
    safe = plain(value).encode("utf-8", "backslashreplace").decode()
    return Html(html.escape(safe))


def join(parts: Iterable[object]) -> Html:
    return Html("".join(map(text, parts)))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """An element: `tag("a", "name", href="#x", class_="link")`. None leaves an attribute out.

    The names of attributes end in `_` where Python reserves them, and `_` inside becomes `-`.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY and not content:
        return Html(f"<{name}{shown}>" if name in ("img", "br", "meta") else f"<{name}{shown}/>")
    return Html(f"<{name}{shown}>{join(content)}</{name}>")


def section(title: str, *content: object, note: object = "") -> Html:
    """A part of the page; the list of parts at its top links to it."""
    lead = tag("p", note, class_="note") if note else ""
    return tag("section", tag("h2", title), lead, *content, id=_anchor(title))


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def table(head: Sequence[object], rows: Iterable[Sequence[object]], numbers: int = 0) -> Html:
    """A table that scrolls sideways where it is too wide. The last `numbers` columns align right.

    Cells are escaped unless they are `Html`.
    """
    first_number = len(head) - numbers

    def cells(kind: str, row: Sequence[object]) -> Html:
        return tag(
            "tr",
            *(
                tag(kind, cell, class_="number" if place >= first_number else None)
                for place, cell in enumerate(row)
            ),
        )

    body = join(cells("td", row) for row in rows)
    heading = tag("thead", cells("th", head)) if any(head) else ""
    return tag("div", tag("table", heading, tag("tbody", body)), class_="scroll")


def tiles(values: Mapping[str, object]) -> Html:
    """A few large numbers: {what it is: value}."""
    return tag(
        "div",
        *(tag("div", tag("b", value), tag("span", name)) for name, value in values.items()),
        class_="tiles",
    )


def details(summary: object, *content: object) -> Html:
    """Content that is hidden until its summary is clicked."""
    return tag("details", tag("summary", summary), *content)


def grid(figures: Iterable[object], width: int = 300) -> Html:
    """Figures beside each other, as many as fit; each at least `width` CSS pixels wide."""
    style = f"grid-template-columns:repeat(auto-fill,minmax(min({width}px,100%),1fr))"
    return tag("div", *figures, class_="grid", style=style)


def figure(content: object, caption: object = "") -> Html:
    return tag("figure", content, tag("figcaption", caption) if caption else "")


def message(kind: str, *content: object) -> Html:
    """A box of the kind "warning" or "good"."""
    return tag("div", *content, class_=f"message {kind}")


def page(title: str, subtitle: str, sections: Sequence[Html]) -> str:
    """The whole page; the parts are linked at its top."""
    titles = [part.split("<h2>", 1)[1].split("</h2>", 1)[0] for part in sections]
    anchors = [part.split('id="', 1)[1].split('"', 1)[0] for part in sections]
    links = (tag("a", Html(name), href=f"#{anchor}") for name, anchor in zip(titles, anchors))
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    body = (
        tag("header", tag("h1", title), tag("p", subtitle, class_="note")),
        tag("nav", *links) if len(sections) > 1 else "",
        tag("main", *sections),
    )
    html_ = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!doctype html>\n{html_}\n"
