"""Workers: they hear no stop signal, so they must end with their trainer; one core is theirs."""

import os
import subprocess
import sys

from torch.utils.data import DataLoader, Dataset

from mme_core.threads import ONE_THREAD
from train.clip_data import make_loader as make_labelled_loader
from train.data import make_loader
from train.workers import usable_cores, worker_options

LEFT = """
import sys
from train.data import ClipDataset, make_loader
from train.sampler import ClipSampler

if __name__ == "__main__":
    clips = ClipDataset(sys.argv[1], frames=4, image_size=32)
    batches = iter(make_loader(clips, ClipSampler(len(clips), 1), workers=1))
    next(batches)
    sys.modules["kept"] = batches  # beyond the last line
"""


class Environment(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, _):
        return dict(os.environ)


def test_a_script_that_leaves_its_loader_open_ends(demo_store, tmp_path):
    script = tmp_path / "left.py"
    script.write_text(LEFT)
    assert subprocess.run([sys.executable, script, demo_store], timeout=60).returncode == 0


def test_a_worker_leaves_the_other_cores_to_the_others(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    loader = DataLoader(Environment(), num_workers=1, **worker_options("train.data"))
    environment = next(iter(loader))
    assert {name: environment[name] for name in ONE_THREAD} == {name: ["1"] for name in ONE_THREAD}
    assert os.environ["OMP_NUM_THREADS"] == "3" and "OPENBLAS_NUM_THREADS" not in os.environ


def test_no_more_workers_than_cores():
    data, batches = Environment(), [[0]]
    for workers, started in ((1000, usable_cores()), (0, 0)):
        assert make_loader(data, batches, workers=workers).num_workers == started
        assert make_labelled_loader(data, batches, list, workers).num_workers == started
