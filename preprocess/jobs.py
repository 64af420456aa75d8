"""What a worker is asked to do, and what became of each video."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from mme_core.datasets import VideoItem
from mme_core.errors import MMEError, StoreError, UsageError
from mme_core.spec import TargetSpec

OK, QUARANTINED = "ok", "quarantined"


ERRORS = {kind.__name__: kind for kind in (MMEError, StoreError, UsageError)}


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to know.

    root      the data set's folder: paths in the store are relative to it
    timeout   seconds of wall clock that a video may take
    poison    id -> reason, of videos that took the process down: they are not tried
    lock      token of the store's lock, without which no shard is finished; "": there is no lock
    """

    number: int
    items: tuple[VideoItem, ...]
    spec: TargetSpec
    store: str
    root: str
    timeout: float
    poison: dict[str, str] = field(default_factory=dict)
    lock: str = ""

    def to_json(self) -> str:
        values = dataclasses.asdict(self)
        return json.dumps(values | {"items": [dataclasses.astuple(item) for item in self.items]})

    @classmethod
    def from_json(cls, text: str) -> ShardJob:
        values = json.loads(text)
        items = tuple(VideoItem(*item) for item in values.pop("items"))
        return cls(items=items, spec=TargetSpec.from_dict(values.pop("spec")), **values)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a video: a row of the ledger.

    reason    of a quarantine; empty when stored
    seconds   of wall clock; None where a lost row was made again from the shard
    frames    decoded; duration: of the video in seconds (0 where its rate is not known)
    label     number of its class, −1 where it has none
    """

    path: str
    id: str
    status: str
    reason: str = ""
    seconds: float | None = None
    shard: int = 0
    frames: int = 0
    duration: float = 0.0
    label: int = -1
