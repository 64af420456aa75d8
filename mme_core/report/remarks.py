"""What a report warns of: videos and settings that often make targets useless."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mme_core.report.survey import Measured, alike
from mme_core.report.words import counted, kind_of
from mme_core.store import VideoTable

CLIP = 8  # tubelets of a clip of 16 frames
_MOVING, _SHAKE, _VALID = 0.01, 1.0, 0.5  # limits of what `Measured` holds


@dataclass(frozen=True)
class Remark:
    """A warning.

    title   what was found, with its number
    advice  what it means and what to do
    videos  ids, or pairs of ids, as text
    """

    title: str
    advice: str
    videos: list[str]


def remarks(table: VideoTable, measured: Sequence[Measured], clip_step: int) -> list[Remark]:
    """All warnings about a store; `measured` is a sample of its videos."""
    found = [*_from_table(table, clip_step), *_from_sample(table, measured)]
    return [remark for remark in found if remark.videos]


def _from_sample(table: VideoTable, measured: Sequence[Measured]) -> Iterator[Remark]:
    ids = table["id"]
    sampled = " sampled" if len(measured) < len(table) else ""
    of = f" of {counted(len(measured), f'{sampled} video'.strip())}"

    def named(test: Sequence[bool]) -> list[str]:
        return [ids[one.row] for one, hit in zip(measured, test) if hit]

    still = named([one.moving < _MOVING for one in measured])
    yield Remark(
        f"Static: {len(still)}{of}",
        "Less than 1 % of their patches move by 0.1 px a frame. Their targets are decoder noise "
        "that normalisation amplifies: leave them out, or set norm.floor in training.",
        still,
    )
    pairs = [f"{ids[a]} = {ids[b]}" for a, b in alike(list(measured), table["frames"])]
    yield Remark(
        f"Look and move alike: {counted(len(pairs), 'pair')}{of}",
        "Probably the same video, stored twice. Pairs across training and held-out sets make "
        "results too good.",
        pairs,
    )
    bars = named([one.letterbox for one in measured])
    yield Remark(
        f"Black bars: {len(bars)}{of}",
        "Patches in the bars have no motion and no gradients. Crop the videos before stage 1.",
        bars,
    )
    shaking = named([one.shake > _SHAKE for one in measured])
    yield Remark(
        f"Shaking camera: {len(shaking)}{of}",
        f"The whole picture's motion changes by more than {_SHAKE:g} px from frame to frame. With "
        "spec.camera=homography the camera's motion can be subtracted (norm.camera=true).",
        shaking,
    )
    invalid = named([one.valid < _VALID for one in measured])
    yield Remark(
        f"More invalid than valid trajectories: {len(invalid)}{of}",
        "Points leave the frame, or frames are missing. Look at these videos.",
        invalid,
    )


def _from_table(table: VideoTable, clip_step: int) -> Iterator[Remark]:
    yield from _frame_rates(table)
    short = table["id"][table["count"] < (CLIP - 1) * clip_step + 1].tolist()
    yield Remark(
        f"Shorter than a clip of {2 * CLIP} frames: {counted(len(short), 'video')}",
        "Their last frame is repeated, without targets. A smaller spec.stride gives more tubelets.",
        short,
    )
    kinds: dict[str, list[str]] = defaultdict(list)
    flagged = [row for row, texts in enumerate(table["warnings"]) if texts]
    for row in flagged:
        for text in table["warnings"][row]:
            kinds[kind_of(text)].append(f"{table['id'][row]}: {text}")
    for kind, videos in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
        yield Remark(
            f"{kind[:1].upper()}{kind[1:]}: {counted(len(videos), 'video')}",
            "Stage 1 noted this while it read.",
            videos,
        )


def _frame_rates(table: VideoTable) -> Iterator[Remark]:
    known = table["fps"] > 0
    rates = table["fps"][known]
    unknown = table["id"][~known].tolist()
    yield Remark(
        f"No known frame rate: {counted(len(unknown), 'video')}",
        "Their speed in pixels a second is unknown; targets count raw frames and are not affected.",
        unknown,
    )
    if not rates.size:
        return
    low, high = np.quantile(rates, [0.02, 0.98])
    if high > 1.1 * low:
        counts = Counter(np.round(rates, 1).tolist()).most_common(8)
        listed = [f"{rate:g} fps: {counted(count, 'video')}" for rate, count in counts]
        yield Remark(
            f"Frame rates differ: {low:.3g} to {high:.3g} fps",
            "A trajectory counts raw frames, so the same motion is longer at a lower rate. "
            "Re-encode to one rate if speed should be comparable.",
            listed,
        )
