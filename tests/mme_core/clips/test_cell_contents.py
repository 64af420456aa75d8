"""Descriptors of cells on their way from a store to a batch."""

import numpy as np
import pytest
import torch
from made_up_targets import make_store

from mme_core import cells
from mme_core.clips.assembly import assemble
from mme_core.clips.contents import build_targets
from mme_core.clips.dataset import ClipDataset, collate
from mme_core.clips.settings import TargetSettings
from mme_core.errors import UsageError
from mme_core.spec import CELLS, TargetSpec
from mme_core.store import TargetStore

SPEC = TargetSpec(short_side=64, long_side=80, cells=CELLS)
SMALL = {"frames": 8, "image_size": 48}
RAW = TargetSettings(norm="none")
CONTENT = {"hog": "hog_every", "hof": "hof", "mbh": "mbh_every"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TargetStore(make_store(tmp_path_factory.mktemp("cells") / "store", spec=SPEC))


@pytest.mark.parametrize("flip", [False, True])
def test_batches_and_windows_see_the_same_cells(store, flip):
    data = ClipDataset(store, **SMALL, cells=CELLS, training=False)
    sample = data[0] | {"flip": torch.tensor(flip)}
    window = store.read(0, int(sample["start"]), 4).crop(0, 1, 3, 3)
    window = window.flip() if flip else window
    built = build_targets(collate([sample]), SPEC, RAW, list(CONTENT.values()))
    for name, content in CONTENT.items():
        steps = window.cells[name][..., : 1 if name == "hof" else SPEC.length, :]
        np.testing.assert_array_equal(built[content][0][0], steps.reshape(4 * 9, -1))


def test_a_zoom_by_one_leaves_cells(store):
    plain = ClipDataset(store, **SMALL, cells=CELLS, flip=False, seed=3)
    same = ClipDataset(store, **SMALL, cells=CELLS, flip=False, seed=3, zoom=(3, 3))
    names = list(CONTENT.values())
    one, other = (build_targets(collate([data[0]]), SPEC, RAW, names) for data in (plain, same))
    for name in names:
        torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-4)


def test_a_zoom_scales_the_speeds_of_moving_bins_alone(store):
    clips = ClipDataset(store, **SMALL, cells=CELLS, zoom=(2, 2))
    coded = clips.fetch(0)
    for name in CELLS:
        codes, moments = (coded[array] for array in cells.array_names((name,)))
        codes[:] = 0
        moments[:] = torch.tensor([1.0, 0.0])  # every sum is 1
    sample = assemble(coded, SPEC)
    expected = torch.tensor([1.5] * 8 + [1])
    torch.testing.assert_close(sample["cell_hof"], expected.expand_as(sample["cell_hof"]))
    for name in ("cell_hog", "cell_mbh"):
        torch.testing.assert_close(sample[name], torch.ones_like(sample[name]))


def test_cells_are_read_only_where_they_are_asked_for(store):
    assert not [name for name in ClipDataset(store, **SMALL)[0] if name.startswith("cell_")]


def test_a_store_without_the_cells_is_named(tmp_path):
    url = make_store(tmp_path / "store", spec=TargetSpec(short_side=64, long_side=80))
    with pytest.raises(UsageError, match=r"cells=hof: .*store does not hold.*spec\.cells=hof"):
        ClipDataset(url, **SMALL, cells=["hof"])
