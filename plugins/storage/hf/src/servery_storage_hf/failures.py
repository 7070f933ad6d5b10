"""What the hub's refusals mean to who serves a model. Imports the SDK: only the provider's calls import this."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # lazy, but documented there
from servery_sdk.errors import Permanent, Transient

from servery_storage_hf.uris import Place

_TRANSIENT = frozenset({408, 425, 429})
# Of the SDK's HTTP library, whichever that is: what the SDK derives its own error from.
_HTTP_ERROR: Any = HfHubHTTPError.__bases__[0]


class translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours; ``what`` is the URI or the file that was asked for."""

    def __init__(self, what: str, place: Place) -> None:
        self._what, self._place = what, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HfHubHTTPError):
            raise _refusal(self._what, self._place, error) from error
        if isinstance(error, OfflineModeIsEnabled):
            raise Permanent(f"{self._what}: {error}") from error
        if isinstance(error, _HTTP_ERROR):
            # The host may be the store of large files, which a firewall has to let through as well.
            host = error.request.url.netloc.decode()
            raise Transient(f"{self._what}: cannot reach {host}: {type(error).__name__}: {error}") from error
        if isinstance(error, ValueError | LookupError | TypeError):
            answer = f"{type(error).__name__}: {error}"
            raise Permanent(f"{self._what}: HF_ENDPOINT does not answer as the hub does: {answer}") from error


def _refusal(what: str, place: Place, error: HfHubHTTPError) -> Permanent | Transient:
    status = error.response.status_code
    said = f" ({error.server_message})" if error.server_message else ""
    if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Transient(f"{what}: the hub answered {status}{said}", retry_after_seconds=_wait(error))
    return Permanent(f"{what}: {status}: {_reason(place, error)}{said}")


def _reason(place: Place, error: HfHubHTTPError) -> str:
    match error:
        case GatedRepoError():
            return f"the model {place.repository} is gated; {_token_advice()}"
        case RepositoryNotFoundError():
            return f"there is no model {place.repository}, or it is private; {_token_advice()}"
        case RevisionNotFoundError():
            slash = "; write a slash in its name as %2F" if place.path else ""
            return f"the model {place.repository} has no revision {place.revision!r}{slash}"
        case RemoteEntryNotFoundError():
            return f"the model {place.repository} has no such file at revision {place.revision!r}"
        case DisabledRepoError():
            return f"the hub has disabled the model {place.repository}"
    status, url = error.response.status_code, error.response.url
    if any(sent.url.netloc != url.netloc for sent in error.response.history):
        return f"{url.host}, where the hub sends who asks for a large file, refused"
    if status == HTTPStatus.UNAUTHORIZED and get_token():
        return "the hub does not know the token that was sent (HF_TOKEN); give another, or none for a public model"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f"the hub refused access; {_token_advice()}"
    return "the hub refused"


def _token_advice() -> str:
    if get_token():
        return "the token that was sent (HF_TOKEN) may not read it: ask for access on the model's page, or give another"
    return "it needs a token: set HF_TOKEN, or give the service account a secret with the key HF_TOKEN"


def _wait(error: HfHubHTTPError) -> float | None:
    """Return the seconds that the hub asks to wait, by either of its headers."""
    headers = error.response.headers
    after = headers.get("retry-after", "")
    if after.isdigit():
        return float(after)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None
