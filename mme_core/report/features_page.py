"""The page on a file of features: nearest neighbours, with pictures of the videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mme_core.errors import UsageError
from mme_core.report.html import Html, details, figure, join, page, section, table, tag, tiles
from mme_core.report.pictures import still
from mme_core.report.plots import legend, scatter
from mme_core.report.words import shorten

QUERIES, NEIGHBOURS = 24, 7  # shown
_CHECKED, _DRAWN = 2000, 600  # videos of which accuracy is measured; points of the map

Picture = Callable[[str], np.ndarray | None]


@dataclass(frozen=True)
class Features:
    """What `mme features` wrote.

    vectors      float32 [V, D]: the mean over a video's views, length 1
    ids          of the videos
    labels       int64 [V]; −1: none
    class_names  of the labels
    not_read     (id, reason)
    config       the recipe, as YAML
    """

    vectors: np.ndarray
    ids: list[str]
    labels: np.ndarray
    class_names: list[str]
    not_read: list[tuple[str, str]] = field(default_factory=list)
    config: str = ""

    def label(self, video: int) -> str:
        number = int(self.labels[video])
        return self.class_names[number] if 0 <= number < len(self.class_names) else ""


def is_features(path: Path) -> bool:
    return path.suffix == ".npz" or (path.suffix == ".zarr" and (path / "features").is_dir())


def read_features(path: Path) -> Features:
    """Reads an .npz file or a Zarr group. Raises UsageError if it is missing or another file."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                values = {name: file[name] for name in file.files}
            about = {name: values[name].tolist() for name in ("ids", "class_names", "not_read")}
            about["config"] = str(values["config"])
        else:
            import zarr

            group = zarr.open_group(path, mode="r")
            values = {name: np.asarray(group[name]) for name in ("features", "label")}
            about = dict(group.attrs)
        vectors = values["features"].mean(1)
        return Features(
            vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12),
            [str(name) for name in about["ids"]],
            values["label"],
            [str(name) for name in about["class_names"]],
            [(str(name), str(reason)) for name, reason in about["not_read"]],
            str(about["config"]),
        )
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; check the path") from error
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"{path}: is not what `mme features` writes ({error})") from error


def nearest(features: Features, queries: Sequence[int], count: int) -> np.ndarray:
    """The videos with the most similar features, int64 [queries, count]; not the video itself."""
    found = []
    for part in np.array_split(np.asarray(queries), max(len(queries) // 256, 1)):
        similar = features.vectors[part] @ features.vectors.T
        similar[np.arange(len(part)), part] = -np.inf
        found.append(np.argsort(-similar, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)


def chosen_queries(features: Features, most: int = QUERIES) -> list[int]:
    """Videos to show: in turn one of each class, spread over the file."""
    by_class: dict[int, list[int]] = {}
    for video, label in enumerate(features.labels.tolist()):
        by_class.setdefault(label, []).append(video)
    share = -(-most // len(by_class))
    spread = [
        [videos[round(p)] for p in np.linspace(0, len(videos) - 1, min(share, len(videos)))]
        for _, videos in sorted(by_class.items())
    ]
    turns = [row[turn] for turn in range(share) for row in spread if turn < len(row)]
    return turns[:most]


def features_page(features: Features, name: str, picture: Picture) -> str:
    """The page as HTML. `picture` gives a frame of a video, RGB uint8; None: there is none."""
    parts = [_summary(features), _map(features), _neighbours(features, picture)]
    if features.not_read:
        rows = table(("video", "reason"), features.not_read[:200])
        parts.append(section("Videos that were not read", details("List", rows)))
    if features.config:
        recipe = tag("pre", *(join([line, Html("\n")]) for line in features.config.splitlines()))
        parts.append(section("Recipe", details("The recipe that made the features", recipe)))
    return page(f"Features {name}", f"{len(features.ids):,} videos", parts)


def _summary(features: Features) -> Html:
    numbers = {
        "videos": f"{len(features.ids):,}",
        "length of a feature": f"{features.vectors.shape[1]:,}",
        "classes": f"{len(features.class_names):,}",
        "not read": f"{len(features.not_read):,}",
    }
    accuracy = _agreement(features)
    if accuracy is not None:
        numbers["nearest neighbour has the same class"] = f"{accuracy:.1%}"
        counts = np.bincount(features.labels[features.labels >= 0])
        share = (counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1))
        numbers["of two random videos"] = f"{share:.1%}"
    return section("Summary", tiles(numbers))


def _agreement(features: Features) -> float | None:
    """Share of labelled videos whose nearest other video has their class; of a sample if many."""
    known = np.flatnonzero(features.labels >= 0)
    if len(set(features.labels[known].tolist())) < 2:
        return None
    places = np.linspace(0, len(known) - 1, min(len(known), _CHECKED)).round().astype(int)
    queries = known[places]
    best = nearest(features, queries.tolist(), 1)[:, 0]
    return float((features.labels[best] == features.labels[queries]).mean())


def _map(features: Features) -> Html:
    chosen = np.linspace(0, len(features.ids) - 1, min(len(features.ids), _DRAWN)).astype(int)
    centred = features.vectors[chosen] - features.vectors[chosen].mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    if points.shape[1] < 2 or len(points) < 3:
        return section("Map", tag("p", "Too few videos for a map."))
    titles = [f"{features.ids[i]} {features.label(i)}" for i in chosen]
    plot = figure(scatter(points, features.labels[chosen].tolist(), titles))
    few = len(features.class_names) <= 8
    return section(
        "Map",
        tag("div", plot, class_="map"),
        legend(features.class_names) if few else "",
        note="The two main directions (PCA) of the features. Colours are classes"
        + ("." if few else ", and repeat."),
    )


def _neighbours(features: Features, picture: Picture) -> Html:
    queries = chosen_queries(features)
    found = nearest(features, queries, min(NEIGHBOURS, len(features.ids) - 1))
    rows = []
    for query, neighbours in zip(queries, found):
        cells = [_cell(features, query, picture, None)]
        cells += [_cell(features, video, picture, query) for video in neighbours.tolist()]
        rows.append(tag("div", *cells, class_="row"))
    return section(
        "Nearest neighbours",
        *rows,
        note="Framed: a video. Beside it: the videos with the most similar features (cosine), the "
        "nearest first.",
    )


def _cell(features: Features, video: int, picture: Picture, query: int | None) -> Html:
    image = picture(features.ids[video])
    shown: Html = tag("div", class_="blank")
    if image is not None:
        shown = still(image, features.ids[video], width=112, quality=45)
    label = features.label(video)
    kind = None
    if query is not None and label and features.label(query):
        kind = "right" if features.labels[video] == features.labels[query] else "wrong"
    name = tag("span", label or shorten(features.ids[video], 26), class_=kind)
    framed = tag("div", shown, class_="mine" if query is None else None)
    return figure(framed, name)
