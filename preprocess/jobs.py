"""What a worker must do (a job), and the result for each video (an outcome)."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mme_core.datasets import VideoItem
from mme_core.errors import MMEError, StoreError, UrlError, UsageError
from mme_core.io.remote import server_of
from mme_core.spec import TargetSpec

OK, QUARANTINED = "ok", "quarantined"

# errors that a child process may report, by name
ERRORS = {kind.__name__: kind for kind in (MMEError, StoreError, UrlError, UsageError)}


@dataclass(frozen=True)
class ShardJob:
    """Everything that a worker needs to write one shard.

    number    number of the shard
    store     folder or URL of the store
    root      folder of the data set; paths in the store are relative to it
    timeout   time limit for one video, in seconds
    poison    id -> reason, for videos that crashed or hung a process: they are not tried again
    servers   servers that hold several videos of the data set; see `shared_servers`
    keep_flow the flow of every frame pair is kept beside the shards
    kept      file with kept flow, to be used instead of computing it; "": there is none
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
    servers: tuple[str, ...] = ()
    keep_flow: bool = False
    kept: str = ""
    lock: str = ""

    def to_json(self) -> str:
        values = dataclasses.asdict(self)
        return json.dumps(values | {"items": [dataclasses.astuple(item) for item in self.items]})

    @classmethod
    def from_json(cls, text: str) -> ShardJob:
        values = json.loads(text)
        items = tuple(VideoItem(*item) for item in values.pop("items"))
        spec, servers = TargetSpec.from_dict(values.pop("spec")), tuple(values.pop("servers"))
        return cls(items=items, spec=spec, servers=servers, **values)


def shared_servers(items: Iterable[VideoItem]) -> tuple[str, ...]:
    """Servers of two or more of the videos. One that fails ends the run, not the video alone."""
    counts = Counter(server_of(item.path) for item in items)
    return tuple(server for server, number in counts.items() if server and number > 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one video: a row of the ledger.

    path      file or URL of the video
    status    OK or QUARANTINED
    reason    why the video is quarantined; empty if it is stored
    seconds   processing time; None if the row was lost and rebuilt from the shard
    stages    seconds of each stage (mme_core.extract.stages), a part of `seconds`; empty where they
              are unknown, as in rows of older versions
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
    stages: dict[str, float] = field(default_factory=dict)
