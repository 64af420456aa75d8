"""The arguments that say which videos and which targets are meant."""

from __future__ import annotations

import argparse
import math
from typing import Any

from mme_core.datasets import DATASETS, Manifest, load_manifest
from mme_core.datasets.paths import any_path
from mme_core.errors import UsageError
from mme_core.extract.flow import flow_function
from mme_core.spec import TargetSpec


def command_parser(name: str, text: str) -> argparse.ArgumentParser:
    """A parser for a command whose module's docstring is `text`, with the arguments below."""
    description, _, epilog = text.partition("\n\n")
    parser = argparse.ArgumentParser(
        f"mme {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "spec",
        nargs="*",
        metavar="spec.FIELD=VALUE",
        help="what the targets are, such as spec.stride=2; docs/store.md lists the fields",
    )
    add("--dataset", required=True, choices=DATASETS, help="which kind of data set")
    add("--root", help="folder or fsspec URL of the videos; `demo` is made there")
    add("--split", help="such as train (default: everything, or the official training split)")
    add("--list", metavar="FILE", help="`csv`: the 'path label' lines (default: ROOT/SPLIT.csv)")
    demo_help = "`demo`: how many (default: as many as --root holds; of a new set 100)"
    add("--demo-videos", type=positive, metavar="N", help=demo_help)
    add("--demo-seed", type=int, metavar="S", help="`demo`: another set (default of a new set: 0)")
    return parser


def read_spec(arguments: argparse.Namespace) -> TargetSpec:
    """The specification: the data set's usual stride, unless the words say otherwise."""
    usual = f"spec.stride={DATASETS[arguments.dataset].stride}"
    spec = TargetSpec.from_overrides([usual, *arguments.spec])
    if ":" not in spec.flow:  # a plug-in may need what only the workers have, such as a GPU
        flow_function(spec.flow)
    return spec


def read_manifest(arguments: argparse.Namespace, generate: bool = True) -> Manifest:
    """The data set; `generate` makes the demo set where it is missing."""
    options: dict[str, Any] = {}
    root = arguments.root
    if arguments.list and arguments.dataset != "csv":
        raise UsageError("--list belongs to --dataset csv")
    if arguments.list:
        options["list_file"] = arguments.list
        root = root or any_path(arguments.list).parent
    if arguments.dataset == "demo":
        options = {"videos": arguments.demo_videos, "seed": arguments.demo_seed}
        options |= {"generate": generate, "report": _report_making}
    return load_manifest(arguments.dataset, root or "", arguments.split, **options)


def _report_making(made: int, total: int) -> None:
    if made == 1:
        print(f"making {total} demo videos", flush=True)


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """A time limit, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1e9:  # what a socket's time limit can be
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0, up to 1e9")
    return value
