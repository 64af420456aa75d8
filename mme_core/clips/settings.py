"""How targets are derived from what a store holds: a recipe's choices."""

from __future__ import annotations

from dataclasses import dataclass

from mme_core.errors import UsageError

NORMS = ("patch", "step", "length", "scale", "none")
# Axes of a displacement [..., K, L, 2] that have one mean and deviation, by the norm.
NORM_AXES: dict[str, tuple[int, ...]] = {"patch": (-3, -2, -1), "step": (-3,)}
MERGES = ("none", "mean", "max")


@dataclass(frozen=True)
class TargetSettings:
    """How targets are derived from what a store holds.

    norm     of position: "patch", one mean and deviation of a patch's K·L·2 numbers (the paper);
             "step", per step and axis over the K points (the authors' release; it deletes common
             translation); "length", divided by the trajectory's Σ‖Δp‖; "scale", divided by the
             root mean square of a patch's K·L·2 numbers; "none", canvas pixels. Only "length",
             "scale" and "none" keep the direction of a translation.
             Shape is normalised over a patch's numbers, except with "none".
    floor    smallest number to divide by, canvas pixels; the paper uses 0
    camera   subtracts the camera's motion from the displacement
    length   number of steps to use. Default: all steps in the store
    merge    reduces a patch to one trajectory (Table 7c): "mean" of its points, or "max", the point
             with the largest Σ‖Δp‖. "none" keeps all points
    """

    norm: str = "patch"
    floor: float = 0.0
    camera: bool = False
    length: int | None = None
    merge: str = "none"

    def trajectories(self, points: int) -> int:
        """Number of trajectories of a patch of K = `points` points: one where they are merged."""
        return points if self.merge == "none" else 1

    def __post_init__(self) -> None:
        for key, value, choices in (
            ("norm", self.norm, NORMS),
            ("merge", self.merge, MERGES),
        ):
            if value not in choices:
                raise UsageError(f"{key}={value} is not one of {', '.join(choices)}")
        if not self.floor >= 0:
            raise UsageError(f"floor={self.floor} must not be negative")
        if self.norm == "step" and self.merge != "none":
            raise UsageError(
                f"norm=step compares a patch's points, and merge={self.merge} leaves one: choose "
                "another norm=…"
            )
