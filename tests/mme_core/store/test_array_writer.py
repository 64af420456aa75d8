from dataclasses import replace

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from mme_core.io.place import open_place
from mme_core.spec import TargetSpec
from mme_core.store.array_writer import ArrayWriter
from mme_core.store.layout import layouts

SPEC = TargetSpec(long_side=48, camera="homography", cells=("hog",))
LAYOUTS = layouts(SPEC)


@pytest.mark.parametrize("rows", [0, 3, 31])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_bytes_are_those_of_zarr(name, rows, tmp_path):
    layout = replace(LAYOUTS[name], chunk=4, file=16)
    noise = np.random.default_rng(0).integers(-9, 99, (rows, *layout.row)).astype(layout.dtype)

    writer = ArrayWriter(open_place(str(tmp_path)), "shard", layout)
    for start in range(0, rows, 5):
        writer.extend(noise[start : start + 5])
    writer.finish()

    expected = {}
    options = layout.zarr_options() | {"shape": noise.shape}
    zarr.create_array(MemoryStore(expected), **options)[:] = noise
    folder = tmp_path / "shard" / name
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        key: coded.to_bytes() for key, coded in expected.items()
    }
    assert {path.name for path in folder.iterdir()} == set(writer.keys)
