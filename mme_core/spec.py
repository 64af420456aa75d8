"""TargetSpec: everything that changes a byte of a store, and its hash."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mme_core.errors import UsageError

TUBELET = 2  # sampled frames in a tubelet; the ViT's Conv3d has this depth

# Fields that older stores lack, with the value that those stores were made with. The hash leaves
# out a field with that value, so an older store keeps its hash.
_ADDED: dict[str, Any] = {"square_pixels": False, "cells": (), "flow_weights": "", "tracks": ""}
_YOUNG = ("cells", "flow_weights", "tracks")  # fields that an older program may not know
CELLS = ("hog", "hof", "mbh")  # descriptors of fixed cells: see `mme_core.cells`
_LARGEST_SIDE = 4096  # pixels; a store's arrays are padded to the square of the longest side
_CHOICES = {"camera": ("none", "homography"), "frames": ("jpeg", "lz4", "none")}
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # annotation: types of a value, in words
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number or None"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a string"),
    "tuple[str, ...]": ((tuple,), "a tuple of strings"),
}


@dataclass(frozen=True)
class TargetSpec:
    """The settings of stage 1. Two stores of the same video and settings have equal bytes.

    stride        frame stride: raw frames from one sampled frame to the next
    hop           raw frames from the start of one tubelet to the next. Default: 2 · stride
    patch         side of a patch, canvas pixels
    points        K, tracked points in a patch; a square number
    length        L, steps of a trajectory, raw frames
    short_side    the resized video's shorter side, pixels
    long_side     largest side of the canvas, pixels
    flow          a name of `mme_core.extract.flow`, or `package.module:function`
    check         forward–backward check of the flow (doubles its cost)
    camera        "homography" stores the camera's motion beside the displacement
    hog_bins      unsigned orientation bins
    hog_cell      side of the HOG window, canvas pixels
    frames        how the sampled frames are stored: "jpeg"; "lz4", which is larger and decodes
                  faster; or "none", not at all
    jpeg_quality  quality of JPEG frames
    square_pixels stretches frames to square pixels where the file declares other pixels
    cells         names of CELLS: descriptors of the fixed cells around the points, stored for each
                  of the L raw frames
    flow_weights  path of the file with the weights of a network that computes the flow
    tracks        `package.module:function`, a point tracker that takes the place of the flow

    Raises UsageError for a value of another type or out of range.
    """

    stride: int = 4
    hop: int | None = None
    patch: int = 16
    points: int = 4
    length: int = 6
    short_side: int = 256
    long_side: int = 320
    flow: str = "dis-tuned"
    check: bool = False
    camera: str = "none"
    hog_bins: int = 9
    hog_cell: int = 8
    frames: str = "jpeg"
    jpeg_quality: int = 90
    square_pixels: bool = True
    cells: tuple[str, ...] = ()
    flow_weights: str = ""
    tracks: str = ""

    def __post_init__(self) -> None:
        self._check_types()
        hop = TUBELET * self.stride if self.hop is None else self.hop
        object.__setattr__(self, "hop", hop)
        for field in dataclasses.fields(self):
            if field.type in ("int", "int | None") and getattr(self, field.name) < 1:
                raise UsageError(f"spec.{field.name} must be at least 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"spec.{name}={getattr(self, name)!r} is not one of {', '.join(choices)}"
                )
        if (TUBELET * self.stride) % hop:
            raise UsageError(
                f"spec.hop={hop} must divide 2·stride={TUBELET * self.stride}, so that the "
                "tubelets of a clip are on the time line"
            )
        if math.isqrt(self.points) ** 2 != self.points or self.patch % math.isqrt(self.points):
            raise UsageError(f"spec.points={self.points} must be a square whose root divides patch")
        if self.points > 8:
            raise UsageError(
                f"spec.points={self.points} must be 1 or 4: a store has 8 bits for their validity"
            )
        if self.hog_bins > 128:
            raise UsageError(
                f"spec.hog_bins={self.hog_bins} must be at most 128: OpenCV sums no more at once"
            )
        self._check_cells()
        self._check_tracks()
        self._check_sides()
        if self.jpeg_quality > 100:
            raise UsageError(f"spec.jpeg_quality={self.jpeg_quality} must be in 1 … 100")

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds, words = _KINDS[str(field.type)]
            items = value if isinstance(value, tuple) else ()
            # Not isinstance: True is no number of pixels.
            if type(value) not in kinds or not all(isinstance(item, str) for item in items):
                raise UsageError(f"spec.{field.name}={value!r} must be {words}")

    def _check_cells(self) -> None:
        for name in self.cells:
            if name not in CELLS:
                raise UsageError(f"spec.cells={name} is not one of {', '.join(CELLS)}")
        # The order of the names changes nothing in a store.
        object.__setattr__(self, "cells", tuple(name for name in CELLS if name in self.cells))
        if self.cells and self.hog_cell * self.grid != self.patch:
            raise UsageError(
                f"spec.cells needs cells that tile a patch: spec.hog_cell={self.hog_cell} must be "
                f"patch / √points = {self.patch // self.grid}"
            )

    def _check_sides(self) -> None:
        if self.short_side < self.patch or self.long_side < self.patch:
            raise UsageError("spec.short_side and spec.long_side must hold at least one patch")
        for name in ("short_side", "long_side"):
            if getattr(self, name) > _LARGEST_SIDE:
                raise UsageError(
                    f"spec.{name}={getattr(self, name)} must be at most {_LARGEST_SIDE}"
                )

    def _check_tracks(self) -> None:
        others = {
            "check": self.check,
            "camera": self.camera != "none",
            "cells": not {"hof", "mbh"}.isdisjoint(self.cells),
        }
        for name, needs_flow in others.items():
            if self.tracks and needs_flow:
                raise UsageError(
                    f"spec.{name} needs flow, and spec.tracks computes none: leave one out"
                )

    @property
    def grid(self) -> int:
        """Points along one side of a patch, m = √K."""
        return math.isqrt(self.points)

    @property
    def patches(self) -> int:
        """P: arrays of a store are padded to P × P patches."""
        return self.long_side // self.patch

    @property
    def clip_step(self) -> int:
        """Number of stored tubelets from one tubelet of a clip to its next."""
        assert self.hop is not None  # __post_init__ fills it in
        return TUBELET * self.stride // self.hop

    def to_dict(self) -> dict[str, Any]:
        """All fields. Younger ones are left out where they are empty: older programs read that."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name not in _YOUNG}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TargetSpec:
        """The reverse of `to_dict`; also reads older stores. Raises UsageError for unknown keys."""
        return cls._from_known({**_ADDED, **values})

    @classmethod
    def _from_known(cls, values: Mapping[str, Any]) -> TargetSpec:
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                offer = f"; did you mean spec.{near[0]}?" if near else ""
                raise UsageError(
                    f"spec.{name} is not a field; the fields are {', '.join(known)}{offer}"
                )
        cells = values.get("cells", ())  # JSON holds a list
        return cls(**{**values, "cells": tuple(cells) if isinstance(cells, list) else cells})

    @classmethod
    def from_overrides(
        cls, overrides: Iterable[str], base: Mapping[str, Any] | None = None
    ) -> TargetSpec:
        """Reads overrides such as `spec.stride=2`. Raises UsageError for unknown fields.

        base  values of the other fields. Default: the fields' defaults
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = dict(base or {})
        for word in overrides:
            name, equals, text = word.removeprefix("spec.").partition("=")
            if not (word.startswith("spec.") and equals):
                hint = f", such as spec.{word}" if name in known else ""
                raise UsageError(f"'{word}' is not of the form spec.FIELD=VALUE{hint}")
            values[name] = _parse(name, text, str(known[name].type)) if name in known else text
        return cls._from_known(values)

    @property
    def hash(self) -> str:
        """Short digest of all fields, except those in _ADDED that have an older store's value."""
        values = {
            name: value
            for name, value in self.to_dict().items()
            if name not in _ADDED or value != _ADDED[name]
        }
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: TargetSpec, here: str, there: str) -> list[str]:
        """Returns the fields that differ, as `stride: 4 in mine, 2 in theirs`.

        here, there  where this specification is, and the other one, such as "in mine"
        """
        differing = self.differing(other).items()
        return [f"{name}: {mine} {here}, {theirs} {there}" for name, (mine, theirs) in differing]

    def differing(self, other: TargetSpec) -> dict[str, tuple[Any, Any]]:
        """Returns {field: (value here, value there)} of the fields that differ, for messages."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {
            name: (_shown(mine[name]), _shown(theirs[name]))
            for name in mine
            if mine[name] != theirs[name]
        }


def _shown(value: Any) -> Any:
    return ",".join(value) or "none" if isinstance(value, tuple) else value


def _parse(name: str, text: str, kind: str) -> Any:
    booleans = {"true": True, "1": True, "false": False, "0": False}
    if kind == "str":
        return text
    if kind == "tuple[str, ...]":
        return tuple(filter(None, text.split(",")))
    if kind == "int | None" and text.lower() == "none":
        return None
    if kind == "bool":
        if text.lower() not in booleans:
            raise UsageError(f"spec.{name}={text} must be true or false")
        return booleans[text.lower()]
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"spec.{name}={text} must be a whole number") from None
