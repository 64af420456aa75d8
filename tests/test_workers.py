"""Workers that hear no stop signal must still end with the process that started them."""

import subprocess
import sys

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


def test_a_script_that_leaves_its_loader_open_ends(demo_store, tmp_path):
    script = tmp_path / "left.py"
    script.write_text(LEFT)
    assert subprocess.run([sys.executable, script, demo_store], timeout=60).returncode == 0
