"""JSON whose numbers stay what they are. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson
from servery_sdk.manifests import Json

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_WIDE = b"0" * 19


def is_wide(text: bytes) -> bool:
    """Return whether a number has so many digits that it may not fit 63 bits.

    numpy then takes another type, for all that stand beside it, and orjson may make a float of it.
    """
    return _WIDE in text.translate(_DIGITS)


def loaded(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body``, integers of any width and NaN among it; None where it is none."""
    try:
        document = json.loads(body) if b"N" in body or is_wide(body) else orjson.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def dumped(document: Mapping[str, Json]) -> bytes:
    """Return what ``loaded`` reads."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
