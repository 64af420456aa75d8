from collections import Counter

import numpy as np
import pytest

from mme_core.errors import UsageError
from train.data.mix import Mix
from train.data.sampler import ClipSampler


def test_epoch_mixes_stores_by_weight():
    mix = Mix([8, 2], [1, 1])
    passes, videos = mix.epoch(0, 0)
    assert len(videos) == 10 and (videos >= 8).sum() == 5
    assert set(passes[videos >= 8]) == {0, 1, 2} and set(passes[videos < 8]) == {0}


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.5, 5, 1]])
def test_videos_of_a_store_are_seen_equally_often(weights):
    mix = Mix([7, 3, 5], weights)
    seen = Counter(zip(*np.concatenate([mix.epoch(3, e) for e in range(40)], axis=1).tolist()))
    assert max(seen.values()) == 1, "a clip is never drawn twice"
    for low, high in ((0, 7), (7, 10), (10, 15)):
        counts = [sum(v == video for _, v in seen) for video in range(low, high)]
        assert max(counts) - min(counts) <= 1
    assert sum(mix.turns) == 15


def test_mixed_order_is_the_same_for_processes_and_resume():
    def make(**changes):
        return ClipSampler(10, changes.pop("size", 4), mix=Mix([8, 2], [1, 1]), **changes)

    def take(sampler, count):
        return [batch for batch, _ in zip(iter(sampler), range(count))]

    whole = take(make(), 6)
    halves = [take(make(size=2, rank=rank, world=2), 6) for rank in range(2)]
    assert [a + b for a, b in zip(*halves)] == whole
    resumed = make()
    resumed.load_state_dict(make().state_dict(3))
    assert take(resumed, 3) == whole[3:]


def test_a_store_that_would_never_be_seen_is_refused():
    with pytest.raises(UsageError, match="store 2 would never be seen in the 120"):
        Mix([100, 20], [1000, 1])
