"""data.resident: the same training with the store in memory, where it fits."""

import pytest
import torch
from damage import flip_bytes, write_shards
from runs import losses, run

from mme_core.clips.dataset import ClipDataset
from mme_core.errors import UsageError
from train.data import resident
from train.data.resident import make_resident

CPU = torch.device("cpu")


@pytest.mark.parametrize("words", [[], ["data.zoom=[3,4]", "mask.kind=motion"]])
def test_resident_and_streamed_losses_are_equal(demo_store, tmp_path, words):
    """With one damaged shard, and with draws from another process."""
    store = write_shards(demo_store.parent / "videos", tmp_path / "store")
    flip_bytes(store, 1)
    words = [*words, "optim.steps=6"]
    streamed = run(store, tmp_path / "a", *words, "data.resident=false", "data.workers=0")
    kept = run(store, tmp_path / "b", *words, "data.resident=true", "data.workers=1")
    assert losses(kept) == losses(streamed) and len(losses(kept)) == 6
    assert kept[-1]["bad"] == streamed[-1]["bad"] == 2


def test_auto_keeps_what_takes_a_small_share_of_the_memory(demo_store, monkeypatch):
    clips = ClipDataset(demo_store, frames=4, image_size=48)
    kept, text = make_resident("auto", clips, CPU)
    assert kept and "are kept on cpu" in text
    monkeypatch.setattr(resident, "_memory", lambda device: 10_000_000)
    nothing, text = make_resident("auto", clips, CPU)
    assert nothing is None and "are more than 0.00 GB, 12.5% of the memory of cpu" in text
    monkeypatch.setattr(resident, "_memory", lambda device: 1000)
    with pytest.raises(UsageError, match=r"^data\.resident=true: .* cpu has 0\.00 GB"):
        make_resident(True, clips, CPU)
    assert make_resident(False, clips, CPU)[0] is None


def test_frames_of_video_files_are_never_kept(demo_store):
    root = demo_store.parent
    clips = ClipDataset(demo_store, frames=4, image_size=48, source="video", root=root)
    assert make_resident("auto", clips, CPU)[0] is None
    with pytest.raises(UsageError, match=r"data\.resident=true needs data\.frames=store"):
        make_resident(True, clips, CPU)
