"""The examples in docs/examples run, and give what they promise."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mme_core import TargetStore

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("start", "tubelets"), [(0, 9), (3, 4)])
def test_zarr_alone_reads_what_the_library_reads(demo_store, start, tubelets):
    read_window = load("read_with_zarr").read_window
    store = TargetStore(demo_store)
    for video in (0, 4):
        expected = store.read(video, start, tubelets)
        displacement, hog, valid = read_window(
            demo_store, store.videos[video]["id"], start, tubelets
        )
        np.testing.assert_allclose(displacement, expected.displacement, atol=1e-5)
        np.testing.assert_allclose(hog, expected.hog, atol=1e-4)
        np.testing.assert_array_equal(valid, expected.valid)


def test_reader_has_fifteen_lines_and_no_library():
    source = inspect.getsource(load("read_with_zarr").read_window)
    assert len(source.splitlines()) - 2 <= 15  # without the heading and the docstring
    code = "import sys, read_with_zarr; assert not {'mme_core', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, check=True)


def test_videomae_learns_trajectories_beside_pixels(demo_store):
    losses = np.array(load("videomae_trajectories").train(demo_store, steps=30))
    assert losses.shape == (30, 2) and np.isfinite(losses).all()
    assert losses[-5:, 1].mean() < 0.9 * losses[:3, 1].mean()


def test_code_of_the_plug_in_page_runs(demo_store):
    page = (EXAMPLES.parent / "plug-in.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    code = "\n".join(blocks).replace("data/stores/mine", str(demo_store))
    names = {}
    exec(code.replace("frames=16, image_size=224", "frames=4, image_size=32"), names)
    assert names["labels"][0][0].shape[1:] == (4, 48)
    assert names["pred_tracks"].shape[1:] == (8, 4, 2)
    assert names["loss"] > 0
