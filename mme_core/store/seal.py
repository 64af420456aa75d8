"""JSON files that carry a digest of their own bytes, so that no changed byte goes unnoticed.

The digest is the SHA-256 of the file with zeros in the digest's place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

KEY = "digest"
_BLANK = "0" * 64
# A quote inside a JSON text is escaped, so that no name or path of a video can look like this.
_DIGEST = re.compile(rb'"digest": "([0-9a-f]{64})"')


def blank() -> dict[str, str]:
    """The entry that `seal` fills; lay it into the document where the digest should stand."""
    return {KEY: _BLANK}


def seal(document: Mapping[str, Any]) -> bytes:
    """The document as JSON text in ASCII, its one `blank` entry replaced by the digest."""
    text = json.dumps(document, indent=1).encode()
    if len(_DIGEST.findall(text)) != 1:
        raise ValueError("a sealed document has exactly one digest")
    return _filled(text, _sha256(text))


def unseal(data: bytes) -> tuple[Any, bool]:
    """The document, and whether it is sealed.

    A document without a digest comes back as it is: stores of format 1 have none. Raises
    ValueError where the bytes were changed, or are no JSON.
    """
    found = _DIGEST.findall(data)
    if len(found) > 1:
        raise ValueError("it has several digests")
    if found and _sha256(_filled(data, _BLANK)) != found[0].decode():
        raise ValueError("its digest does not match its bytes")
    try:
        return json.loads(data), bool(found)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _filled(text: bytes, digest: str) -> bytes:
    return _DIGEST.sub(f'"{KEY}": "{digest}"'.encode(), text)


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
