"""The fields of a recipe: each declares its default, help and limits in one place.

    epochs: int = number(800, "passes over the training videos", at_least=1)
    kind: str = choice("tube", MASKS, "which tokens are hidden")

`check_limits` and `describe` derive checks, messages and help from the fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mme_core.errors import UsageError

MISSING = "???"  # OmegaConf's word for a value that must be given
_META = "recipe"
_WIDTH = 34  # columns of "key=default" in the help


@dataclass(frozen=True)
class Limits:
    """Limits of a value, or of each value of a list or dictionary; None and () set no limit.

    names      the allowed values
    count      length of a list
    not_empty  a list must have at least one value
    """

    help: str = ""
    names: tuple[Any, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    count: int | None = None
    not_empty: bool = False

    def hold(self, value: Any) -> bool:
        """Whether a single value is within the limits; NaN is not."""
        if self.names:
            return value in self.names
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """As in "must be at least 1", or "one of tube, cube"; empty without limits."""
        if self.names:
            return f"one of {', '.join(map(as_text, self.names))}"
        if self.at_least is not None and self.at_most is not None:
            return f"between {self.at_least} and {self.at_most}"
        bounds = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(
            f"{word} {value}" for word, value in bounds.items() if value is not None
        )


def setting(default: Any, help: str = "", **limits: Any) -> Any:
    """A field of any type with its help; the limits are those of `Limits`."""
    metadata = {_META: Limits(help, **limits)}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def number(
    default: float | None,
    help: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A number within limits, or None if the default is None."""
    return setting(default, help, at_least=at_least, at_most=at_most, above=above, below=below)


def choice(default: Any, names: Iterable[Any], help: str = "") -> Any:
    """One of the names, such as the keys of a registry."""
    return setting(default, help, names=tuple(names))


def check_limits(config: Any, raw: Mapping[str, str]) -> None:
    """Raises UsageError for the first value of a recipe that is outside its field's limits.

    raw  {key: text} of values with ${…}; messages show the text, not the value
    """
    for key, value, limits in walk(config):
        if isinstance(value, list):
            _check_list(key, value, limits, raw.get(key, value))
        for full, one in _entries(key, value):
            shown = raw.get(full, one)
            if not limits.hold(one):
                verb = "is not" if limits.names else "must be"
                raise UsageError(f"{full}={shown} {verb} {limits}")
            if isinstance(one, float) and not math.isfinite(one):
                raise UsageError(f"{full}={shown} is not a finite number")


def _entries(key: str, value: Any) -> list[tuple[str, Any]]:
    """(key, value) of each single value that a leaf holds."""
    if isinstance(value, dict):
        return [(f"{key}.{name}", one) for name, one in value.items()]
    return [
        (key, one) for one in (value if isinstance(value, list) else [value]) if one is not None
    ]


def _check_list(key: str, values: list[Any], limits: Limits, shown: Any) -> None:
    if limits.not_empty and not values:
        raise UsageError(f"{key}={shown} must name at least one")
    if limits.count not in (None, len(values)):
        raise UsageError(f"{key}={shown} must be {limits.count} numbers, each {limits}")


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Limits]]:
    """(dotted key, value, limits) of every leaf of a recipe."""
    for item in dataclasses.fields(config):
        key, value = f"{prefix}{item.name}", getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{key}.")
        else:
            yield key, value, item.metadata.get(_META, Limits())


def describe(schema: type) -> str:
    """One line a key: its default, its help, its choices or limits."""
    lines = []
    for key, value, limits in walk(schema()):
        start = f"{key}={as_text(value)}" if value != MISSING else f"{key}=… (must be given)"
        parts = [part for part in (limits.help, str(limits)) if part]
        lines.append(f"  {start:<{_WIDTH}} {'; '.join(parts)}".rstrip())
    return "\n".join(lines)


def as_text(value: Any) -> str:
    """A default as a user would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return str(value)
