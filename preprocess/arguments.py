"""The options that choose the data set and the specification of the targets."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from mme_core.datasets import DATASETS, Manifest, load_manifest
from mme_core.datasets.paths import any_path
from mme_core.errors import UsageError, named
from mme_core.extract.flow import check_flow, check_side
from mme_core.io.place import local_path
from mme_core.io.remote import is_in_memory, is_url
from mme_core.parser import CommandParser
from mme_core.spec import TargetSpec
from mme_core.terminal import is_quiet


def command_parser(name: str, text: str) -> CommandParser:
    """A parser with the options that `mme flows` and `mme estimate` share; arguments as its own."""
    parser = CommandParser(name, text)
    add = parser.add_argument
    add(
        "spec",
        nargs="*",
        metavar="spec.FIELD=VALUE",
        help="field of the specification, such as spec.stride=2; see docs/store.md",
    )
    kinds = f"data set: {', '.join(DATASETS)}"
    add("--dataset", required=True, choices=DATASETS, metavar="KIND", help=kinds)
    add("--root", metavar="DIR", help="folder or URL of the videos (default: folder of --list)")
    split_help = "split, such as train (default: the official training split, or all videos)"
    add("--split", metavar="NAME", help=split_help)
    list_help = "for csv: file of 'path label' lines (default: ROOT/SPLIT.csv)"
    add("--list", metavar="FILE", help=list_help)
    videos_help = "for demo: number of videos (default: those in ROOT; for a new set 100)"
    add("--demo-videos", type=positive, metavar="N", help=videos_help)
    seed_help = "for demo: random seed (default: that of the set in ROOT; for a new set 0)"
    add("--demo-seed", type=int, metavar="N", help=seed_help)
    return parser


def read_spec(arguments: argparse.Namespace) -> TargetSpec:
    """The specification. The stride is the data set's usual one unless an argument sets it."""
    usual = f"spec.stride={DATASETS[arguments.dataset].stride}"
    spec = TargetSpec.from_overrides([usual, *arguments.spec])
    # A network or a plug-in may need a GPU, which only the workers have: so it is not loaded here.
    check_flow(spec.flow, spec.flow_weights)
    if not spec.tracks:
        check_side(spec.flow, spec.short_side)
    if spec.flow_weights:  # the workers run in another folder
        weights = Path(spec.flow_weights).expanduser().absolute()
        spec = dataclasses.replace(spec, flow_weights=str(weights))
    return spec


def check_folder(root: str) -> None:
    """Raises UsageError if the videos' folder is not there; passes a URL, and "" for unknown."""
    if root and not is_url(root) and not Path(root).is_dir():
        raise UsageError(
            f"{root}, the folder of the videos, is not there: give the new one by --root"
        )


def read_manifest(arguments: argparse.Namespace, generate: bool = True) -> Manifest:
    """The videos of the data set. With `generate`, missing demo videos are made."""
    options: dict[str, Any] = {}
    root = arguments.root
    for option, value, kind in (
        ("--list", arguments.list, "csv"),
        ("--demo-videos", arguments.demo_videos, "demo"),
        ("--demo-seed", arguments.demo_seed, "demo"),
    ):
        if value is not None and arguments.dataset != kind:
            raise UsageError(f"{option} belongs to --dataset {kind}")
    if arguments.list:
        options["list_file"] = arguments.list
        root = root or any_path(arguments.list).parent
    if arguments.dataset == "demo":
        options = {"videos": arguments.demo_videos, "seed": arguments.demo_seed}
        options |= {"generate": generate, "report": _report_making}
    with named(
        root="--root",
        split="--split",
        list_file="--list",
        dataset="--dataset",
        seed="--demo-seed",
    ):
        return load_manifest(arguments.dataset, root or "", arguments.split, **options)


def _report_making(made: int, total: int) -> None:
    if made == 1 and not is_quiet():
        print(f"making {total} demo videos", file=sys.stderr, flush=True)


def absolute(store: str) -> str:
    """The address of a store to write, valid in any folder.

    Raises UsageError for an empty one, and for one that would end with this process.
    """
    if not store:
        raise UsageError("--store is empty: name a folder or URL")
    if is_in_memory(store):
        raise UsageError(
            f"--store {store} lives in the memory of one process, and ends with it: name a folder, "
            "or a URL such as s3://BUCKET/STORE"
        )
    path = local_path(store)
    return store if path is None else str(path.absolute())


def positive(text: str) -> int:
    """Converts an option to a whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """Converts an option to a time limit in seconds, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1e9:  # the largest time limit of a socket
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0, up to 1e9")
    return value
