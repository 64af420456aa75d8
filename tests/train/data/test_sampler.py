from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.errors import UsageError
from train.data.sampler import ClipSampler, epoch_order


def batches(count, *args, **kwargs):
    return list(islice(ClipSampler(*args, **kwargs), count))


@settings(max_examples=40, deadline=None)
@given(
    videos=st.integers(8, 60), world=st.sampled_from([1, 2, 4]), accumulate=st.sampled_from([1, 2])
)
def test_a_step_holds_the_same_videos_whatever_the_processes(videos, world, accumulate):
    """8 videos a step: as one batch, or spread over processes and micro-batches."""
    one = batches(6, videos, 8, seed=3)
    size = 8 // (world * accumulate)
    ranks = [
        batches(6 * accumulate, videos, size, rank=r, world=world, accumulate=accumulate, seed=3)
        for r in range(world)
    ]
    for step in range(6):
        parts = [
            ranks[r][step * accumulate + micro] for micro in range(accumulate) for r in range(world)
        ]
        assert [pair for part in parts for pair in part] == one[step]


def test_an_epoch_is_whole_steps_without_repeats_and_the_next_is_other():
    sampler = ClipSampler(21, 4, accumulate=2, seed=1)
    assert len(sampler) == 4
    first, second = [list(islice(sampler, 8))[i : i + 4] for i in (0, 4)]
    drawn = [video for batch in first for _, video in batch]
    assert len(set(drawn)) == 16 and {epoch for batch in first for epoch, _ in batch} == {0}
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert drawn != [video for batch in second for _, video in batch]
    assert drawn != [video for batch in batches(4, 21, 4, seed=2) for _, video in batch]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("done", [0, 3, 7, 12])
def test_resume_in_the_middle_of_an_epoch(done, world):
    def make():
        return ClipSampler(43, 4 // world, rank=world - 1, world=world, seed=5)

    state = make().state_dict(done)
    resumed = make()
    assert resumed.load_state_dict(state) == done
    assert list(islice(resumed, 9)) == list(islice(make(), done, done + 9))


def test_resume_on_another_number_of_processes():
    state = ClipSampler(43, 4, seed=5).state_dict(7)
    resumed = ClipSampler(43, 2, rank=1, world=2, seed=5)
    resumed.load_state_dict(state)
    assert next(iter(resumed)) == batches(8, 43, 4, seed=5)[7][2:]


def test_resume_refuses_another_order():
    state = ClipSampler(43, 4, seed=5).state_dict(7)
    for other, name in [
        (ClipSampler(44, 4, seed=5), "videos is 44 .* if the store has grown, start a new run"),
        (ClipSampler(43, 4, seed=6), "seed"),
        (ClipSampler(43, 8, seed=5), "videos a step"),
        (ClipSampler(43, 4, seed=5, shards=np.zeros(43, int)), "shuffle"),
    ]:
        with pytest.raises(UsageError, match=name):
            other.load_state_dict(state)
    # three of the four processes' micro-batches are no whole number of the larger ones
    state = ClipSampler(43, 2, seed=5, accumulate=2).state_dict(3)
    with pytest.raises(UsageError, match=r"multiple of data\.batch_size"):
        ClipSampler(43, 4, seed=5).load_state_dict(state)


def test_too_few_videos_for_a_step():
    with pytest.raises(UsageError, match=r"7 videos .* 2 videos × processes=2 .*=2 = 8"):
        ClipSampler(7, 2, world=2, accumulate=2)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_single_pass_takes_every_video_once(world):
    samplers = [ClipSampler(10, 3, rank=r, world=world, endless=False) for r in range(world)]
    parts = [list(sampler) for sampler in samplers]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers]
    assert sorted(video for part in parts for batch in part for _, video in batch) == list(
        range(10)
    )
    assert all(batch for part in parts for batch in part)
    assert next(iter(samplers[0])) == [(0, video) for video in samplers[0].order(0)[:3]]


def test_a_single_pass_may_leave_a_process_without_a_batch():
    assert list(ClipSampler(2, 2, rank=1, world=2, endless=False)) == []


def test_shuffling_by_shards_mixes_a_few_shards_at_a_time():
    shards = np.repeat(np.arange(10), 7)
    order = epoch_order(70, 0, 0, shards)
    assert sorted(order) == list(range(70))
    groups = [shards[order[start : start + 28]] for start in range(0, 70, 28)]
    assert [len(set(group)) for group in groups] == [4, 4, 2]
    assert len(set(groups[0][:7])) > 1  # mixed, not one shard after another
    other = epoch_order(70, 0, 1, shards)
    assert set(shards[other[:28]]) != set(groups[0])
    assert list(order[:28]) != sorted(order[:28])
