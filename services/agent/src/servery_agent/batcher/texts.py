"""JSON whose numbers stay what they are. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from servery_sdk.manifests import Json

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_WIDE = b"0" * 19
_LONG_BYTES = 4096
_EIGHT_TRUE = np.ones(8, dtype=bool).view(np.uint64)


def is_wide(text: bytes | memoryview) -> bool:
    """Return whether a number has so many digits that it may not fit 63 bits.

    numpy then takes another type, for all that stand beside it, and orjson may make a float of it.
    """
    if len(text) >= _LONG_BYTES:
        # So many digits fill an aligned word, which most texts have none of.
        is_digit = (np.frombuffer(text, np.uint8) - ord("0")) < 10
        if not (is_digit[: len(text) // 8 * 8].view(np.uint64) == _EIGHT_TRUE).any():
            return False
    return _WIDE in bytes(text).translate(_DIGITS)


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
