"""The benchmarks' clips on a GPU are those of `ClipDataset`, here on a CPU."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_targets import make_store

from mme_core.clips.assembly import assemble
from mme_core.clips.dataset import ClipDataset
from mme_core.clips.draws import Draw
from mme_core.clips.geometry import View
from mme_core.clips.trajectories import stored_to_raw
from mme_core.spec import TargetSpec
from mme_core.store import StoreUnion

SPEC = TargetSpec(stride=2, hop=2, short_side=64, long_side=80)


@pytest.fixture
def resident(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks.resident import cache, clips

    yield cache, clips
    for name in [name for name in sys.modules if name.startswith("benchmarks.resident")]:
        del sys.modules[name]


def sample(data, video, start, view):
    """The sample of one draw, as a batch."""
    mask = {"mask": np.zeros(4 * 3 * 3, bool)}
    data.draw = lambda key: Draw(video, start, (view,), (mask,))
    return assemble(data.fetch((0, video)), SPEC)


@pytest.mark.parametrize("zoom", [3, 4])
def test_resident_clips_are_those_of_the_data_set(tmp_path, resident, monkeypatch, zoom):
    cache, clips = resident
    urls = [tmp_path / "a", tmp_path / "b"]
    make_store(urls[0], ({"a.mp4": 20, "b.mp4": 9},), SPEC)
    make_store(urls[1], ({"c.mp4": 24},), SPEC)
    for url in urls:
        cache.decode_store(str(url), 1)
    options = {"frames": 8, "image_size": 48, "zoom": [3, 4]}
    data = ClipDataset(StoreUnion(urls), **options)
    keys = itertools.repeat([(0, 0), (0, 1), (0, 2)], 1)
    batch = next(iter(clips.ResidentClips(data, keys, torch.device("cpu"), [1], [zoom])))
    for video in range(3):
        found = {name: batch[name][video : video + 1] for name in batch if name != "failed"}
        mine, flip = stored_to_raw(found, SPEC), bool(found["flip"])
        last = max(data.store.videos[video]["count"] - 7, 0)
        places = itertools.product(range(last + 1), range(5 - zoom), range(6 - zoom))
        matched = []
        for start, top, left in places:
            view = View(top, left, zoom, flip)
            theirs = stored_to_raw(sample(data, video, start, view), SPEC)
            if not torch.allclose(mine.displacement, theirs.displacement, atol=1e-4):
                continue
            matched.append((start, view))
            assert torch.allclose(mine.hog, theirs.hog, atol=1e-3)
            assert torch.equal(mine.valid, theirs.valid)
            # a made-up frame belongs to one tubelet, a real one to two: so first frames alone
            images = sample(data, video, start, view)["frames"][0, ::2]
            off = (found["frames"][0, ::2].int() - images.int()).abs()
            assert off.max() <= (0 if zoom == 3 else 1)
        assert len(matched) == 1
