"""`mme report`: writes one HTML page that shows a store, training runs, or features.

    mme report STORE -o report.html
    mme report RUN [RUN ...] -o report.html      runs of mme pretrain, finetune, probe or evaluate
    mme report FEATURES -o neighbours.html       what mme features wrote

The page needs no other file and no network.
"""

from __future__ import annotations

from pathlib import Path

from mme_core.errors import UsageError, naming
from mme_core.io.place import open_place
from mme_core.io.remote import is_url
from mme_core.parser import CommandParser, disk_path
from mme_core.progress import follow
from mme_core.report.features_page import features_page, is_features, read_features
from mme_core.report.gallery import choose_films, draw_film
from mme_core.report.run_files import is_run, names_of, read_run
from mme_core.report.run_page import run_page
from mme_core.report.store_page import Timing, store_page
from mme_core.report.survey import choose, survey
from mme_core.report.words import size
from mme_core.store import TargetStore
from mme_core.store.layout import STORE
from mme_core.terminal import plain
from preprocess.arguments import positive
from preprocess.info import describe
from preprocess.jobs import OK
from preprocess.ledger import read_rows
from preprocess.thumbnails import pictures_of

SAMPLE = 300  # videos


def parser() -> CommandParser:
    made = CommandParser("report", __doc__)
    add = made.add_argument
    add("what", nargs="+", metavar="WHAT", help="a store, one or more runs, or a file of features")
    output_help = "page to write"
    add("-o", "--output", metavar="FILE", type=disk_path, required=True, help=output_help)
    sample_help = "number of a store's videos that are measured"
    add("--sample", type=positive, default=SAMPLE, metavar="N", help=sample_help)
    root_help = (
        "for features: folder of the videos, or the store (default: where mme features read)"
    )
    add("--root", metavar="DIR", help=root_help)
    return made


def main(argv: list[str]) -> int:
    """Writes the page; returns 0. Raises UsageError or StoreError."""
    arguments = parser().parse_args(argv)
    output: Path = arguments.output
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {output}: the name must end in .html")
    if output.is_dir():
        raise UsageError(f"-o {output} is a folder: name a file")
    output.parent.mkdir(parents=True, exist_ok=True)
    page = _page(arguments.what, arguments.sample, arguments.root)
    with naming(output):
        output.write_text(page, encoding="utf-8")
    print(plain(f"{output}: {size(len(page.encode()))}"))
    return 0


def _page(what: list[str], sample: int, root: str | None) -> str:
    """The page on these folders and files. Raises UsageError where they are nothing known."""
    paths = list(map(Path, what))
    if len(what) == 1 and open_place(what[0]).exists(STORE):
        return _store(what[0], sample)
    if all(not is_url(name) and is_run(path) for name, path in zip(what, paths)):
        return run_page([read_run(path, name) for path, name in zip(paths, names_of(paths))])
    if len(what) == 1 and is_features(paths[0]):
        features = read_features(paths[0])
        return features_page(features, paths[0].name, pictures_of(features.config, root))
    if len(what) > 1:
        other = next(w for w, path in zip(what, paths) if is_url(w) or not is_run(path))
        raise UsageError(f"{other} is not a run, and only runs share a page: give it alone")
    if not is_url(what[0]) and not paths[0].exists():
        raise UsageError(f"{what[0]} does not exist; check the path")
    raise UsageError(
        f"{what[0]} is not a store (no {STORE}), not a run (no config.yaml) and not a file of "
        "features (.zarr or .npz)"
    )


def _store(url: str, sample: int) -> str:
    store, about = TargetStore(url), describe(url)
    rows = choose(len(store.videos), sample)
    measured = list(follow(survey(store, rows), len(rows), "videos measured"))
    chosen = choose_films(measured)
    films = [draw_film(store, one) for one in follow(chosen, len(chosen), "films drawn")]
    return store_page(store, about, measured, films, timing(store))


def timing(store: TargetStore) -> Timing:
    """The times in the ledger, of the videos that the store's table knows."""
    known, times = set(store.videos["id"]), Timing()
    for row in read_rows(open_place(store.url)):
        if row.seconds is None:
            continue
        if row.status != OK:
            times.quarantined[row.id] = row.seconds
        elif row.id in known:
            times.stored[row.id] = row.seconds
            if row.stages:
                times.stages[row.id] = row.stages
    return times
