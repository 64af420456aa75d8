"""Clips of a store that is kept in memory are those that are read from the store."""

from dataclasses import replace

import pytest
import torch
from damage import flip_bytes, write_shards
from made_up_targets import make_store

from mme_core.clips.assembly import assemble
from mme_core.clips.dataset import ClipDataset
from mme_core.clips.resident import Resident, resident_bytes
from mme_core.spec import TargetSpec

CPU = torch.device("cpu")
SPEC = TargetSpec(short_side=64, long_side=96, camera="homography", cells=("hof", "mbh"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two shards with videos of 11 and 9 tubelets, and of 3, which is less than a clip."""
    shards = ({"a.mp4": 11, "b.mp4": 3}, {"c.mp4": 9})
    return make_store(tmp_path_factory.mktemp("resident") / "store", shards, SPEC)


def both(clips, epochs=4):
    """A batch sampled in memory, and the same batch read from the store."""
    keys = [(epoch, video) for epoch in range(epochs) for video in range(len(clips))]
    form, count = replace(clips.form, drawn=True), len(keys) * clips.crops
    draws = form.carve(torch.zeros(form.size(count), dtype=torch.uint8), count)
    arrays = {name: value.numpy() for name, value in draws.items()}
    for place, key in enumerate(keys):
        clips.draw_into(arrays, place * clips.crops, key)
    parts = [clips.fetch(key) for key in keys]
    read = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Resident(clips, CPU).sample(draws), read


@pytest.mark.parametrize("mask", ["tube", "motion"])
@pytest.mark.parametrize("options", [{}, {"crops": 2}, {"cells": ("mbh",)}, {"training": False}])
def test_samples_equal_those_of_the_store(store, options, mask):
    sampled, read = both(ClipDataset(store, frames=8, image_size=48, mask=mask, **options))
    assert sampled.keys() == read.keys()
    for name, value in read.items():
        assert sampled[name].dtype == value.dtype and torch.equal(sampled[name], value), name


def test_frames_in_lz4_equal_those_of_the_store(tmp_path):
    spec = TargetSpec(short_side=64, long_side=96, frames="lz4")
    url = make_store(tmp_path / "store", ({"a.mp4": 11, "b.mp4": 3},), spec)
    sampled, read = both(ClipDataset(url, frames=8, image_size=48))
    assert torch.equal(sampled["frames"], read["frames"])
    assert read["frames"].float().std() > 10


def test_zoomed_samples_equal_those_of_the_store(store):
    clips = ClipDataset(store, frames=8, image_size=48, zoom=(2, 4), cells=("hof",))
    sampled, read = both(clips)
    assert sampled.keys() == read.keys()
    assert read["flip"].any() and len(read["view"][:, 2].unique()) == 3
    sampled, read = (assemble(batch, clips.spec) for batch in (sampled, read))
    for name, value in read.items():
        assert torch.equal(sampled[name], value), name


def test_tubelets_that_overlap_are_taken_with_their_step(tmp_path):
    spec = TargetSpec(short_side=64, long_side=96, stride=2, hop=2)
    url = make_store(tmp_path / "store", ({"a.mp4": 11, "b.mp4": 3},), spec)
    sampled, read = both(ClipDataset(url, frames=8, image_size=48))
    for name, value in read.items():
        assert torch.equal(sampled[name], value), name


def test_the_memory_is_known_beforehand(store):
    clips = ClipDataset(store, frames=8, image_size=48, cells=("mbh",))
    kept = Resident(clips, CPU)._kept
    assert sum(value.nbytes for value in kept.values()) == resident_bytes(clips)


def test_a_damaged_video_is_named_and_the_others_are_kept(demo_store, tmp_path):
    store = write_shards(demo_store.parent / "videos", tmp_path / "store")
    flip_bytes(store, 1)
    clips = ClipDataset(store, frames=4, image_size=48)
    resident = Resident(clips, CPU, threads=2)
    assert set(resident.unreadable) == {2, 3} and "00001.zarr" in resident.unreadable[2]


@pytest.mark.parametrize("zoom", [(), (2, 4)])
@pytest.mark.parametrize("hop", [1, 2, 4])
def test_speeds_are_those_of_the_store(tmp_path, hop, zoom):
    spec = TargetSpec(short_side=64, long_side=96, stride=2, hop=hop)
    url = make_store(tmp_path / "store", ({"a.mp4": 44, "b.mp4": 5, "c.mp4": 14},), spec)
    clips = ClipDataset(url, frames=6, image_size=48, zoom=zoom, speeds=(1, 2, 3))
    sampled, read = both(clips, epochs=9)
    assert len({clips.draw((epoch, 0)).speed for epoch in range(9)}) == 3
    sampled, read = (assemble(batch, clips.spec) for batch in (sampled, read))
    for name, value in read.items():
        assert torch.equal(sampled[name], value), name
