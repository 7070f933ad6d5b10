"""One root error, one set of codes; the tables per wire (HTTP, gRPC, Kubernetes reason) live at the edges."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from servery_sdk.manifests import Json


class ErrorCode(enum.StrEnum):
    """What went wrong, in words that every wire has a number for."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    NOT_READY = "NOT_READY"
    UNAVAILABLE = "UNAVAILABLE"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"


class ServeryError(Exception):
    """The root of every error that Servery raises on purpose; ``str`` of it is fit for a user."""

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class FieldErrorKind(enum.StrEnum):
    """The kinds of Kubernetes' own field errors, in its own words.

    Source: k8s.io/apimachinery/pkg/util/validation/field.
    """

    REQUIRED = "Required value"
    INVALID = "Invalid value"
    NOT_SUPPORTED = "Unsupported value"
    FORBIDDEN = "Forbidden"
    DUPLICATE = "Duplicate value"
    NOT_FOUND = "Not found"
    UNKNOWN = "Unknown field"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One wrong field: where, what was found, and what to do.

    Attributes:
        path: ``spec.predictor.containers[0].image``.
        kind: Decides the words between the path and the value.
        value: What was found; left out of the text for ``REQUIRED``, ``FORBIDDEN`` and ``UNKNOWN``.
        detail: What is allowed, or what to do.
    """

    path: str
    kind: FieldErrorKind
    value: Json = None
    detail: str = ""

    def __str__(self) -> str:
        words = [f"{self.path}: {self.kind}"]
        if self.kind not in {FieldErrorKind.REQUIRED, FieldErrorKind.FORBIDDEN, FieldErrorKind.UNKNOWN}:
            words.append(json.dumps(self.value, default=str))
        if self.detail:
            words.append(self.detail)
        return ": ".join(words)


def unsupported(path: str, value: Json, allowed: Iterable[str], *, what: str = "supported values") -> FieldError:
    """Return the error for a value outside a closed set, which it lists, sorted."""
    choices = ", ".join(json.dumps(choice) for choice in sorted(allowed))
    return FieldError(path=path, kind=FieldErrorKind.NOT_SUPPORTED, value=value, detail=f"{what}: {choices}")


class Invalid(ServeryError):
    """A manifest is wrong. Carries every error at once, never only the first.

    Attributes:
        errors: Non-empty.
    """

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


class Transient(ServeryError):
    """It may work when tried again.

    Attributes:
        retry_after_seconds: What the other side asked for, if it did.
    """

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Permanent(ServeryError):
    """Trying again is of no use until somebody changes something."""

    code = ErrorCode.INVALID_ARGUMENT
