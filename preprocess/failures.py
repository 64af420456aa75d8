"""The limit of `mme flows --max-failures`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mme_core.report.words import counted
from preprocess.jobs import QUARANTINED, Outcome


class Failures:
    """Counts the quarantined videos among the chosen ones.

    most    limit of --max-failures; None: no limit
    known   outcomes of earlier runs
    wanted  ids of the chosen videos
    """

    def __init__(self, most: int | None, known: Iterable[Outcome], wanted: set[str]) -> None:
        self.wanted = wanted
        self._most = most
        self._ids = {row.id for row in known if row.id in wanted and row.status == QUARANTINED}

    def count(self, outcomes: Sequence[Outcome]) -> None:
        for row in outcomes:
            change = self._ids.add if row.status == QUARANTINED else self._ids.discard
            change(row.id)

    @property
    def too_many(self) -> bool:
        return self._most is not None and len(self._ids) > self._most

    def __str__(self) -> str:
        count = counted(len(self._ids), "quarantined video")
        return f"{count}, more than --max-failures {self._most}"
