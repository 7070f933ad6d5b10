"""Parameters of requests, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servery_sdk.manifests import Json
from servery_sdk.serving import InputError


def number(parameters: Mapping[str, Json], name: str, default: float, *, least: float, most: float) -> float:
    """Return a parameter that is a number, or ``default`` where it is left out.

    Raises:
        InputError: It is none, or not from ``least`` to ``most``.
    """
    value = parameters.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"parameter {name!r}: must be a number from {least:g} to {most:g}, found {value!r}")
    return value


def whole(parameters: Mapping[str, Json], name: str, default: int, *, least: int, most: int) -> int:
    """Return a parameter that is an integer, as ``number`` does."""
    value = number(parameters, name, default, least=least, most=most)
    if value != int(value):
        raise InputError(f"parameter {name!r}: must be an integer, found {value!r}")
    return int(value)


def word(parameters: Mapping[str, Json], name: str, default: str, choices: Sequence[str] = ()) -> str:
    """Return a parameter that is a text, one of ``choices`` where there are some.

    Raises:
        InputError: It is none of them.
    """
    value = parameters.get(name, default)
    if not isinstance(value, str) or (choices and value not in choices):
        allowed = f"one of: {', '.join(sorted(choices))}" if choices else "a text"
        raise InputError(f"parameter {name!r}: must be {allowed}; found {value!r}")
    return value


def switch(parameters: Mapping[str, Json], name: str, *, default: bool = False) -> bool:
    """Return a parameter that is true or false.

    Raises:
        InputError: It is something else.
    """
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"parameter {name!r}: must be true or false, found {value!r}")
    return value
