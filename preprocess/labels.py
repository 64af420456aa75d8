"""Whether the labels of a data set are those that its stored videos have."""

from __future__ import annotations

from collections.abc import Iterable

from mme_core.datasets import VideoItem
from mme_core.errors import StoreError, listed
from mme_core.report.words import counted
from mme_core.store.layout import shard_name
from preprocess.jobs import OK
from preprocess.ledger import Ledger


def check_labels(ledger: Ledger, items: Iterable[VideoItem], store: str) -> None:
    """Raises StoreError where a stored video has another label than its item.

    A shard is never changed, so the store would keep the old label.
    """
    known = ((item, ledger[item.id]) for item in items if item.id in ledger)
    changed = [(i, row) for i, row in known if row.status == OK and row.label != i.label]
    if not changed:
        return
    item, row = changed[0]
    shards = listed([shard_name(number) for number in sorted({row.shard for _, row in changed})])
    raise StoreError(
        f"{store} stores {counted(len(changed), 'video')} with another label than the data set "
        f"now gives, such as {item.id}: {row.label} in the store, {item.label} in the data set. "
        f"Remove {shards} from the store and run the same command again, which makes them anew "
        "with the new labels, or use another --store"
    )
