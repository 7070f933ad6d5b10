"""Names as Kubernetes takes them."""

from __future__ import annotations

import hashlib
import re

from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.manifests import Json

LABEL_CHARACTERS = 63
"""Most characters of a DNS label, which a Service's name and a label's value are."""

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def objection(name: Json, path: str, *, prefix: str = "", suffix: str = "") -> FieldError | None:
    """Return what is wrong with a name that objects are named after, None where nothing is.

    Args:
        path: Of the field that holds it.
        prefix: What the longest of those objects' names has before it.
        suffix: Likewise, behind it.

    Source: RFC 1035 labels, as k8s.io/apimachinery validation.IsDNS1035Label has them for Services.
    """
    if not name:
        return FieldError(path=path, kind=FieldErrorKind.REQUIRED)
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        detail = "must consist of lower case letters, digits or '-', start with a letter and end with no '-'"
        return FieldError(path=path, kind=FieldErrorKind.INVALID, value=name, detail=detail)
    longest = f"{prefix}{name}{suffix}"
    if len(longest) > LABEL_CHARACTERS:
        detail = (
            f"too long: its objects are named {longest}, {len(longest)} characters, the limit is {LABEL_CHARACTERS}"
        )
        return FieldError(path=path, kind=FieldErrorKind.INVALID, value=name, detail=detail)
    return None


def shortened(name: str, characters: int = LABEL_CHARACTERS) -> str:
    """Return ``name`` in at most so many characters; a cut one ends in a digest of the whole, so it stays unique."""
    if len(name) <= characters:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: characters - 9].rstrip('-.')}-{digest}"
