"""The shards depend only on the manifest, however an earlier run was stopped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mme_core.datasets import VideoItem
from mme_core.errors import StoreError
from mme_core.io.place import open_place
from preprocess.plan import (
    MOST_PER_SHARD,
    check_free,
    choose,
    default_videos_per_shard,
    plan_shards,
)


def items(count):
    return [VideoItem(f"{number:04d}.mp4", f"/{number}") for number in range(count)]


@given(st.data(), st.integers(0, 40), st.integers(1, 7))
def test_resumed_run_has_the_same_shards(data, count, size):
    whole = list(plan_shards(items(count), (), (), size))
    finished = data.draw(st.sets(st.sampled_from(whole))) if whole else set()
    done = {item.id for shard in finished for item in shard.items}
    rest = plan_shards(items(count), done, {shard.number for shard in finished}, size)
    assert sorted([*finished, *rest], key=lambda shard: shard.number) == whole


def test_new_videos_go_into_new_shards():
    old = [VideoItem(name, "") for name in ("b", "d", "f")]
    grown = sorted([*old, VideoItem("a", ""), VideoItem("c", "")], key=lambda item: item.id)
    before = list(plan_shards(old, (), (), 2))
    after = list(plan_shards(grown, {item.id for item in old}, {0, 1}, 2))
    assert [shard.number for shard in before] == [0, 1]
    assert [(s.number, [i.id for i in s.items]) for s in after] == [(2, ["a", "c"])]


def test_fractions_are_nested_and_in_order():
    all_items = items(50)
    some = choose(all_items, None, 0.2, seed=3)
    more = choose(all_items, None, 0.5, seed=3)
    assert (len(some), len(more)) == (10, 25)
    assert set(some) < set(more)
    assert some == sorted(some, key=lambda item: item.id)
    assert choose(all_items, None, 0.2, seed=4) != some
    assert choose(all_items, 3, None, seed=0) == all_items[:3]


@given(st.integers(1, 10**5))
def test_videos_per_shard(videos):
    size = default_videos_per_shard(videos)
    shards = -(-videos // size)
    assert size == MOST_PER_SHARD or shards <= size <= shards + 1


def test_default_videos_per_shard_of_known_data_sets():
    sizes = {n: default_videos_per_shard(n) for n in (1, 4, 100, 3570, 9537, 240_000)}
    assert sizes == {1: 1, 4: 2, 100: 10, 3570: 60, 9537: 64, 240_000: MOST_PER_SHARD}


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_folder_without_its_table_is_in_the_way_on_a_disk(scheme, tmp_path):
    place = open_place(f"{scheme}{tmp_path}/store")
    place.write("shards/00000.zarr/zarr.json", b"{}")
    check_free(place, "remove it")
    place.write("shards/00003.zarr/shape/c.0", b"")
    if scheme:
        check_free(place, "remove it")
        return
    with pytest.raises(StoreError, match=r"00003.zarr: there is no zarr.json in it: remove it"):
        check_free(place, "remove it")
