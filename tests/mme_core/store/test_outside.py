"""Nothing else is written into a store."""

import pytest

from mme_core.errors import UsageError
from mme_core.store.outside import check_outside


@pytest.mark.parametrize("inside", ["", "run", "shards/run"])
def test_a_place_in_a_store_is_refused(store_path, inside):
    with pytest.raises(UsageError, match=rf"^out=.* lies in the store {store_path}: choose"):
        check_outside(store_path / inside, "out=")


def test_a_link_into_a_store_is_refused(store_path, tmp_path):
    (tmp_path / "link").symlink_to(store_path)
    with pytest.raises(UsageError, match="lies in the store"):
        check_outside(tmp_path / "link" / "run", "out=")


def test_a_place_beside_a_store_is_free(store_path):
    check_outside(store_path.parent / "run", "out=")


def test_a_file_that_is_called_like_a_stores_makes_no_store(tmp_path):
    (tmp_path / "store.json").write_text("{}")
    check_outside(tmp_path / "run", "out=")
