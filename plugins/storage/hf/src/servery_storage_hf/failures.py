"""What the hub's refusals mean to who serves a model. Imports the SDK: only the provider's calls import this."""

from __future__ import annotations

from huggingface_hub import get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers
from servery_sdk.errors import Permanent, Transient

from servery_storage_hf.uris import Place

_TRANSIENT = frozenset({408, 425, 429})
# Of the SDK's HTTP library, whichever that is: what the SDK derives its own error from.
_HTTP_ERROR = HfHubHTTPError.__bases__[0]


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
            raise Transient(f"{self._what}: {type(error).__name__}: {error}") from error
        # A name that no repository can have, an endpoint that is no URL, an answer that is no JSON of the hub's.
        if isinstance(error, ValueError | KeyError):
            raise Permanent(f"{self._what}: {type(error).__name__}: {error}") from error


def _refusal(what: str, place: Place, error: HfHubHTTPError) -> Permanent | Transient:
    status = error.response.status_code
    said = f" ({error.server_message})" if error.server_message else ""
    if status in _TRANSIENT or status >= 500:
        return Transient(f"{what}: the hub answered {status}{said}", retry_after_seconds=_wait(error))
    match error:
        case GatedRepoError():
            reason = f"the model {place.repository} is gated; {_token_advice()}"
        case RepositoryNotFoundError():
            reason = f"there is no model {place.repository}, or it is private; {_token_advice()}"
        case RevisionNotFoundError():
            reason = f"the model {place.repository} has no revision {place.revision!r}"
        case RemoteEntryNotFoundError():
            reason = f"the model {place.repository} has no such file at revision {place.revision!r}"
        case _ if status in {401, 403}:
            reason = f"the hub refused access; {_token_advice()}"
        case _:
            reason = f"the hub answered {status}"
    return Permanent(f"{what}: {status}: {reason}{said}")


def _token_advice() -> str:
    if get_token():
        return "the token that was sent (HF_TOKEN) may not read it: ask for access on the model's page, or give another"
    return "it needs a token: set HF_TOKEN, or give the service account a secret with the key HF_TOKEN"


def _wait(error: HfHubHTTPError) -> float | None:
    headers = error.response.headers
    after = headers.get("retry-after", "")
    if after.isdigit():
        return float(after)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None
