"""Errors of the library name its arguments; here they get the names of the recipe's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mme_core.errors import MMEError


@contextmanager
def named(**keys: str) -> Iterator[None]:
    """Inside, errors that say `argument=…` say `key=…` instead, by {argument: key}.

    with named(ratio="mask.ratio"):
        hidden_count(shape, config.mask.ratio)
    """
    words = "|".join(map(re.escape, keys))
    try:
        yield
    except MMEError as error:
        text = re.sub(rf"(?<![\w.])({words})(?==)", lambda found: keys[found[1]], str(error))
        raise type(error)(text) from error
