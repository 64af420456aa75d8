"""A store does not keep an old label without a word."""

import pytest

from mme_core.datasets import VideoItem
from mme_core.errors import StoreError
from mme_core.io.place import open_place
from preprocess.jobs import OK, QUARANTINED, Outcome
from preprocess.labels import check_labels
from preprocess.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(open_place(tmp_path), "/v")
    made.add(0, [Outcome("/v/a", "a", OK, label=1), Outcome("/v/b", "b", OK)])
    made.add(
        3,
        [
            Outcome("/v/c", "c", QUARANTINED, "?", label=1),
            Outcome("/v/d", "d", OK, shard=3, label=1),
        ],
    )
    return made


def items(**labels):
    return [VideoItem(name, f"/v/{name}", label) for name, label in labels.items()]


def test_changed_labels_are_counted_with_an_example_and_the_mend(ledger):
    with pytest.raises(StoreError) as caught:
        check_labels(ledger, items(a=1, d=2, b=0), "/store")
    message = str(caught.value)
    assert "/store stores 2 videos with another label" in message
    assert "such as d: 1 in the store, 2 in the data set" in message
    assert "Remove shards/00000.zarr, shards/00003.zarr from the store" in message


def test_equal_labels_no_labels_and_quarantined_videos_are_no_change(ledger):
    check_labels(ledger, items(a=1, b=-1, c=2, new=5), "/store")
