"""Quantities as Kubernetes writes them: ``500m``, ``2Gi``, ``1e3``.

Source: k8s.io/apimachinery/pkg/api/resource (Quantity).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.manifests import Json

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE]?)|[eE]([+-]?\d+))")
_ALLOWED = "a number with an optional unit: n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as 1e3"


def parse(text: str | float) -> Decimal:
    """Return the value of a quantity.

    Raises:
        ValueError: It is none; says what one is.
    """
    found = _QUANTITY.fullmatch(str(text))
    if found is None or isinstance(text, bool):
        raise ValueError(f"must be {_ALLOWED}")
    number, unit, exponent = Decimal(found[1]), found[2], found[3]
    if exponent is not None:
        return number.scaleb(int(exponent))
    return number * _BINARY[unit] if unit in _BINARY else number.scaleb(_DECIMAL[unit])


def resource_errors(resources: Json, path: str) -> Iterator[FieldError]:
    """Yield what is wrong with a container's ``resources``: quantities that are none, requests above their limits."""
    if not isinstance(resources, Mapping):
        return
    values: dict[tuple[str, str], Decimal] = {}
    for part in ("limits", "requests"):
        found = resources.get(part)
        for name, text in (found if isinstance(found, Mapping) else {}).items():
            at = f"{path}.{part}[{name}]"
            if not isinstance(text, str | float | int):
                continue  # The schema says that.
            try:
                values[part, name] = parse(text)
            except ValueError as error:
                yield FieldError(path=at, kind=FieldErrorKind.INVALID, value=text, detail=str(error))
                continue
            if values[part, name] < 0:
                detail = "must be greater than or equal to 0"
                yield FieldError(path=at, kind=FieldErrorKind.INVALID, value=text, detail=detail)
    for (part, name), value in values.items():
        limit = values.get(("limits", name))
        if part == "requests" and limit is not None and value > limit:
            most = resources["limits"][name]
            yield FieldError(
                path=f"{path}.requests[{name}]",
                kind=FieldErrorKind.INVALID,
                value=resources["requests"][name],
                detail=f"must be less than or equal to the {name} limit of {most}",
            )
