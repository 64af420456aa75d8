"""Batches from workers lie in shared memory that is used again, but never too early."""

import os

import pytest
import torch

from mme_core.clips.dataset import ClipDataset
from train.data import handover
from train.data.handover import Blocks, Handed
from train.data.loader import BLOCKS, make_clip_loader
from train.data.sampler import ClipSampler


class Info:
    id = 0


@pytest.fixture
def form(demo_store):
    return ClipDataset(demo_store, frames=4, image_size=32).form


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(handover, "get_worker_info", lambda: Info)


def sent(blocks, form, clips=2):
    memory, block = blocks.take(form.size(clips))
    return Handed(memory, form, clips, clips, {}, block)


def test_a_block_is_not_used_while_a_tensor_refers_to_it(worker, form):
    """Another process maps the memory anew, so here the worker's own reference must go first."""
    blocks = Blocks(1, 1)
    batch = blocks.receive(sent(blocks, form))
    blocks._own.clear()
    kept = batch.pop("video")
    batch.clear()
    assert blocks.receive(sent(blocks, form))["video"].data_ptr() != kept.data_ptr()
    assert blocks.take(1)[1] is None
    del kept
    blocks._release()
    assert blocks.take(1)[1] == (0, 0)


def test_a_copied_block_is_free_at_once(worker, form):
    blocks = Blocks(1, 1)
    handed = sent(blocks, form)
    assert blocks.take(1)[1] is None
    copy = Handed(handed.memory.clone(), form, 2, 2, {}, handed.block, handed.memory)
    batch = blocks.receive(copy)
    assert blocks.take(1)[1] == (0, 0)
    assert batch["video"].data_ptr() != handed.memory.data_ptr()


def test_workers_hand_over_what_the_process_itself_loads(demo_store):
    clips = ClipDataset(demo_store, frames=4, image_size=32, zoom=(2, 3), crops=2)

    def batches(workers):
        loader = make_clip_loader(clips, ClipSampler(6, 3, seed=1), workers)
        taken = [batch for batch, _ in zip(loader, range(20))]  # all are kept
        return [taken[0], taken[-1]]

    for mine, theirs in zip(batches(0), batches(1)):
        assert mine.pop("failed") == theirs.pop("failed") == {}
        side = mine["view"][:, 2].max() * 16
        for batch in (mine, theirs):
            batch["frames"] = batch["frames"][:, :, :side, :side]
        for name in ("video", "start", "view", "mask", "flip"):
            assert torch.equal(mine[name], theirs[name])
        for place, size in enumerate(mine["view"][:, 2].tolist()):
            a, b = (batch["frames"][place, :, : 16 * size, : 16 * size] for batch in (mine, theirs))
            assert torch.equal(a, b)


def test_a_worker_uses_few_blocks_again(demo_store):
    clips = ClipDataset(demo_store, frames=4, image_size=32)
    loader = make_clip_loader(clips, ClipSampler(6, 2), 1)
    files = set()
    for batch, _ in zip(loader, range(40)):
        files.add(os.fstat(batch["frames"].untyped_storage()._share_fd_cpu_()[0]).st_ino)
    assert len(files) <= BLOCKS
