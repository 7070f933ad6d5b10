"""What the hub's refusals mean to who serves a model. Imports the SDK: only the provider's calls import this."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # lazy, but documented there
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hubs import HubPlace
from servery_sdk.storage import Refusal

_TRANSIENT = frozenset({408, 425, 429})
# Of the SDK's HTTP library, whichever that is: what the SDK derives its own error from.
_HTTP_ERROR: Any = HfHubHTTPError.__bases__[0]
_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105  # the hub's words
_DISABLED = "Access to this resource is disabled."


class translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours; ``what`` is the URI or the file that was asked for."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            raise Permanent(f"{self._what}: {error}") from error
        if isinstance(error, _HTTP_ERROR):
            host = error.request.url.netloc.decode()
            raise Transient(f"{self._what}: cannot reach {host}: {type(error).__name__}: {error}") from error
        if isinstance(error, ValueError | LookupError | TypeError):
            answer = f"{type(error).__name__}: {error}"
            raise Permanent(f"{self._what}: HF_ENDPOINT does not answer as the hub does: {answer}") from error


def failure(what: str, place: HubPlace, refusal: Refusal, *, is_hub: bool) -> Permanent | Transient:
    """Return what a refusal means; ``is_hub`` where it is the hub's own, not of the store that it sent to.

    Source: huggingface_hub.utils.hf_raise_for_status: ``X-Error-Code`` and ``X-Error-Message``, or ``error`` in the body.
    """
    words = refusal.headers.get("x-error-message") or _error_of(refusal.body)
    said = f" ({words})" if words else ""
    if refusal.status in _TRANSIENT or refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Transient(f"{what}: the hub answered {refusal.status}{said}", retry_after_seconds=_wait(refusal))
    reason = (
        _reason(place, refusal, words)
        if is_hub
        else f"{urlsplit(refusal.url).hostname}, where the hub sends who asks for a large file, refused"
    )
    return Permanent(f"{what}: {refusal.status}: {reason}{said}")


def _reason(place: HubPlace, refusal: Refusal, words: str) -> str:
    match refusal.headers.get("x-error-code"):
        case "GatedRepo":
            return f"the model {place.repository} is gated; {_token_advice()}"
        case "RepoNotFound":
            return f"there is no model {place.repository}, or it is private; {_token_advice()}"
        case "RevisionNotFound":
            slash = "; write a slash in its name as %2F" if place.path else ""
            return f"the model {place.repository} has no revision {place.revision!r}{slash}"
        case "EntryNotFound":
            return f"the model {place.repository} has no such file at revision {place.revision!r}"
    if words == _DISABLED:
        return f"the hub has disabled the model {place.repository}"
    if refusal.status == HTTPStatus.UNAUTHORIZED and get_token():
        return "the hub does not know the token that was sent (HF_TOKEN); give another, or none for a public model"
    if refusal.status == HTTPStatus.UNAUTHORIZED and words != _BAD_TOKEN:
        # How the hub answers who is nobody, of what may be there.
        return f"there is no model {place.repository}, or it is private; {_token_advice()}"
    if refusal.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f"the hub refused access; {_token_advice()}"
    return "the hub refused"


def _token_advice() -> str:
    if get_token():
        return "the token that was sent (HF_TOKEN) may not read it: ask for access on the model's page, or give another"
    return "it needs a token: set HF_TOKEN, or give the service account a secret with the key HF_TOKEN"


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return ""


def _wait(refusal: Refusal) -> float | None:
    """Return the seconds that the hub asks to wait, by either of its headers."""
    if (seconds := refusal.retry_after_seconds) is not None:
        return seconds
    limit = parse_ratelimit_headers(refusal.headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None
