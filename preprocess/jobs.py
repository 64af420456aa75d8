"""What a worker must do (a job), and the result for each video (an outcome)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from mme_core.datasets import VideoItem
from mme_core.errors import MMEError, StoreError, UsageError
from mme_core.spec import TargetSpec

OK, QUARANTINED = "ok", "quarantined"

# errors that a child process may report, by name
ERRORS = {kind.__name__: kind for kind in (MMEError, StoreError, UsageError)}


@dataclass(frozen=True)
class ShardJob:
    """Everything that a worker needs to write one shard.

    number    number of the shard
    store     folder or URL of the store
    root      folder of the data set; paths in the store are relative to it
    timeout   time limit for one video, in seconds
    poison    id -> reason, for videos that crashed or hung a process: they are not tried again
    lock      token of the store's lock: the shard is only finished if the store still has that
              lock; "": there is no lock
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
    """The result for one video: a row of the ledger.

    path      file or URL of the video
    status    OK or QUARANTINED
    reason    why the video is quarantined; empty if it is stored
    seconds   processing time; None if the row was lost and rebuilt from the shard
    frames    number of decoded frames
    duration  length of the video in seconds; 0 if its frame rate is unknown
    label     number of its class; −1 if it has none
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
