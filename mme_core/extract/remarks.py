"""Texts about a video that was read: its warnings, and why it has no valid trajectory."""

from __future__ import annotations

from collections.abc import Iterator

from mme_core.extract.tracker import Tracker
from mme_core.io.frame import SQUARE, Frame
from mme_core.io.frame_folder import FrameFolder
from mme_core.io.timeline import UNORDERED
from mme_core.io.video import Part, Video
from mme_core.spec import TargetSpec


def why_none_is_valid(frames: int, spec: TargetSpec) -> str:
    """Returns the reason for rejecting a video of `frames` frames without a valid trajectory."""
    needed = max(spec.length, spec.stride) + 1
    if frames < needed:
        counted = f"{frames} frame{'s' * (frames != 1)}"
        return f"{counted}: too short for one trajectory of {spec.length} steps ({needed} frames)"
    return f"{frames} frames without one valid trajectory: gaps, or points that leave the frame"


def warnings_of(
    video: Video | FrameFolder, tracker: Tracker, first: Frame, spec: TargetSpec
) -> Iterator[str]:
    """Yields the warnings for a video's row in the table of videos.

    first  the first frame of the video
    """
    counts = {
        "broken packets": video.broken_packets,
        "damaged frames": video.damaged_frames,
        "gaps": video.timeline.gaps,
        "frame pairs without a homography": tracker.unmatched,
        "interlaced frames": video.interlaced_frames,
    }
    yield from (f"{name}: {count}" for name, count in counts.items() if count)
    if not video.timeline.increasing:
        yield UNORDERED
    if tracker.repeats.often:
        repeats = tracker.repeats
        yield f"frames stored twice: {repeats.count} of {repeats.pairs} pairs"
    aspect = video.pixel_aspect
    if aspect != SQUARE:
        done = "made square" if spec.square_pixels else "taken as square"
        yield f"pixels of {aspect.numerator}:{aspect.denominator}, {done}"
    if first.is_stereo:
        yield "two views in one frame (stereo)"


def part_warning(part: Part, frames: int) -> str:
    """Returns the warning of a file of `frames` frames of which only a part is used."""
    return (
        f"the frame size changes: only frames {part.first} … {part.first + part.count - 1} of "
        f"{frames} are used, the longest part of one size"
    )
