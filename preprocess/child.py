"""The process that decodes. A decoder may crash or hang inside C; then only this process is lost.

`python -m preprocess.child FD PARENT` reads jobs from the socket FD and answers with messages. A
message is one line with a JSON object:

    {"begin": id}             work on a video begins
    {"outcome": {…}}          the video is stored or quarantined; see `preprocess.jobs.Outcome`
    {"done": true}            the shard is finished
    {"error": [kind, text]}   the run must stop (full disk, wrong flow plug-in, …)
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import sys
import traceback
from typing import Any

from mme_core.errors import MMEError
from mme_core.processes import die_with_parent, end_first_without_memory
from preprocess.jobs import ShardJob
from preprocess.shard import write_shard


def main(argv: list[str]) -> int:
    """Writes shards until the parent closes the socket."""
    die_with_parent(int(argv[1]))
    end_first_without_memory()
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    with socket.socket(fileno=int(argv[0])) as channel, channel.makefile("rw") as lines:

        def report(message: dict[str, Any]) -> None:
            lines.write(json.dumps(message) + "\n")
            lines.flush()

        for line in lines:
            try:
                write_shard(ShardJob.from_json(line), report)
            except MMEError as error:
                report({"error": [type(error).__name__, str(error)]})
            except Exception as error:  # a bug of this program, not a fault of a video
                traceback.print_exc()
                report({"error": ["MMEError", f"internal error: {type(error).__name__}: {error}"]})
            _give_back_memory()
    return 0


def _give_back_memory() -> None:
    """glibc keeps what videos of many sizes have freed: tens of MB more for each hundred videos."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
