"""Where the frames of a stored video are in its file.

Stage 1 says it in the video's warnings, which the table of a store holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# The timestamps of one frame may then be those of another frame too.
UNORDERED = "timestamps are missing or do not increase"

_PART = re.compile(r"the frame size changes: only frames (\d+) … ")


def part_warning(first: int, count: int, frames: int) -> str:
    """Returns the warning of a video of which only a part is used.

    first   number of the part's first frame in the file
    count   number of frames of the part
    frames  number of frames of the file
    """
    return (
        f"the frame size changes: only frames {first} … {first + count - 1} of {frames} are used, "
        "the longest part of one size"
    )


def first_frame(warnings: Iterable[str]) -> int:
    """Returns the number in the file of a stored video's first frame; 0 without such a warning."""
    found = filter(None, map(_PART.match, warnings))
    return next((int(match[1]) for match in found), 0)
