"""`mme features`: features of the videos of a data set, as a Zarr group or an npz file.

    mme features init=runs/pretrain store=out/k400 out=features.zarr view.clips=5
    mme features init=weights.safetensors data.dataset=folder data.root=DIR out=features.npz

The file holds `features` float32 [videos, views, width] (mean over tokens), `label` int64 [videos],
the ids, the class names, the videos that could not be read, and the resolved recipe.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import zarr

from mme_core.errors import UsageError
from mme_core.io.place import local_path
from mme_core.report.words import counted
from mme_core.store.outside import check_outside
from mme_core.terminal import plain
from train.data.sources import Source, open_source
from train.engine.distributed import PATIENCE, connected
from train.engine.signals import interrupt_waits
from train.recipes import loading
from train.recipes.scoring import FeaturesConfig
from train.recipes.weights import read_encoder
from train.scoring.evaluation import Passes, settled, view_plan
from train.scoring.features import Features, extract_features

SUFFIXES = (".zarr", ".npz")


def check_store_keys(config: FeaturesConfig, out: Path) -> None:
    """Raises UsageError for a split of a store, and for an `out` that would damage a store."""
    check_outside(out, "out=")
    if config.store is None:
        return
    if config.split is not None:
        raise UsageError(
            f"split={config.split} cannot be read from store={config.store}, which is read whole: "
            "leave split out, or name a store of that split (mme flows --split)"
        )
    folder = local_path(config.store)
    if folder is not None and folder.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"out={out} would be written over store={config.store}, which is read: choose a place "
            "outside of it"
        )


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Yields an empty file or folder beside `path`, to be filled and then renamed to `path`.

    It is removed if the block ends without that. Raises UsageError if it cannot be made, or if
    `path` is something else than a file (npz) or a group (Zarr) of features.
    """
    replaceable = path.is_file() if path.suffix == ".npz" else (path / "features").is_dir()
    if path.exists() and not replaceable:
        raise UsageError(f"out={path}: exists and does not hold features; choose another name")
    aside = path.with_name(f".part-{path.name}")  # with the same suffix, which says the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            aside.touch()
        else:
            aside.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"out={path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        yield aside
    finally:
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)


def write_features(
    path: Path, aside: Path, features: Features, source: Source, config: FeaturesConfig
) -> None:
    """Writes a Zarr group with ids, names and recipe as attributes, or an npz file of arrays."""
    ids = [source.ids[video] for video in features.video]
    labels = source.labels[features.video]
    about = {
        "ids": ids,
        "class_names": list(source.class_names),
        "not_read": features.failures,
        "config": loading.to_yaml(config),
    }
    if path.suffix == ".npz":
        arrays = {name: np.array(values, dtype=str) for name, values in about.items()}
        arrays |= {"features": features.pooled, "label": labels}
        np.savez(aside, **arrays)  # type: ignore[arg-type] # the stub takes ** for allow_pickle
    else:
        group = zarr.open_group(aside, mode="w")
        group.create_array("features", data=features.pooled)
        group.create_array("label", data=labels)
        group.attrs.update(json.loads(json.dumps(about)))
    with interrupt_waits():  # between the two there are no features
        if path.is_dir():
            shutil.rmtree(path)
        aside.rename(path)


def main(argv: list[str]) -> int:
    config, given, _ = loading.load_given(FeaturesConfig, argv, "mme features", __doc__, {})
    out = Path(config.out)
    if out.is_symlink():
        out = out.resolve()  # what the link names is replaced, and not the link
    if out.suffix not in SUFFIXES:
        raise UsageError(f"out={out}: the name must end in {' or '.join(SUFFIXES)}")
    check_store_keys(config, out)
    with connected(config.device, PATIENCE) as ranks:
        encoder, model, recipe = read_encoder(config.init, config.model, config.seed, given)
        data = settled(config.data, recipe)  # the features keep their configuration
        config = dataclasses.replace(config, model=model, data=data)
        source = open_source(config.data, config.store, root=config.data.root, split=config.split)
        plan = view_plan(source, config.data, config.view, model)
        with claimed(out) if ranks.main else nullcontext() as aside:
            passes = Passes.of(config, ranks)
            features = extract_features(encoder.to(ranks.device), source, plan, ranks, passes)
            if aside:
                try:
                    write_features(out, aside, features, source, config)
                except OSError as error:  # numpy names no file
                    raise OSError(error.errno, error.strerror, str(out)) from error
        if ranks.main:
            videos, views, width = features.pooled.shape
            print(
                f"{plain(out)}: [videos, views, width] {videos} × {views} × {width}; "
                f"{counted(len(features.failures), 'video')} could not be read"
            )
        return 0
