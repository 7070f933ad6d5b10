"""What Azure's refusals mean to who serves a model: KServe's sentences first, the server's own words behind.

Imports the SDK: only the provider's calls import this.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from azure.core import exceptions as sdk
from servery_sdk.errors import Permanent, Transient

from servery_storage_azure.places import Place

_AUTHENTICATION = "Azure authentication failed. Verify AZURE_CLIENT_ID/AZURE_CLIENT_SECRET or AZURE_STORAGE_ACCESS_KEY."
_OF_CREDENTIALS = frozenset(
    {"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "PublicAccessNotPermitted"}
)
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_SECRET = re.compile(r"\?\S*sig=\S*")


def failure(
    what: str, place: Place, status: int, code: str, words: str, *, retry_after_seconds: float | None = None
) -> Transient | Permanent:
    """Return what an answer means for ``what``, which is a URI without a signature."""
    said = f"({status} {code}: {_SECRET.sub('', words)})"
    if status in _TRANSIENT:
        return Transient(f"{what}: {said}", retry_after_seconds=retry_after_seconds)
    is_of_credentials = code in _OF_CREDENTIALS or words.startswith("Server failed to authenticate")
    if status == HTTPStatus.UNAUTHORIZED or is_of_credentials:
        return Permanent(f"{what}: {_AUTHENTICATION} {said}")
    return Permanent(f"{what}: {_sentence(what, place, status, code)} {said}")


def _sentence(what: str, place: Place, status: int, code: str) -> str:
    match code, status:
        case (("ContainerNotFound" | "ShareNotFound"), _):
            return f"Azure resource '{place.container}' not found."
        case _, HTTPStatus.NOT_FOUND:
            return f"Azure resource '{what}' not found."
        case _, HTTPStatus.FORBIDDEN:
            return f"Access denied to Azure resource '{place.container}'. Verify permissions."
        case _, HTTPStatus.PRECONDITION_FAILED:
            return "The object changed during the download."
    return "Azure refused."


class translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours; ``what`` is a URI without a signature."""

    def __init__(self, what: str, place: Place) -> None:
        self._what, self._place = what, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sdk.HttpResponseError) and error.status_code is not None:
            code = getattr(error, "error_code", None)
            code = str(getattr(code, "value", code) or error.reason)
            words = (error.message or "").partition("\n")[0]
            raise failure(self._what, self._place, error.status_code, code, words) from error
        if isinstance(error, sdk.ClientAuthenticationError):
            raise Permanent(f"{self._what}: {_AUTHENTICATION} ({error.message})") from error
        if isinstance(error, sdk.ServiceRequestError | sdk.ServiceResponseError):
            said = f"Failed to connect to Azure endpoint '{self._place.host}'. ({_SECRET.sub('', str(error))})"
            is_final = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise (Permanent if is_final else Transient)(f"{self._what}: {said}") from error
        if isinstance(error, sdk.AzureError | ValueError):
            raise Permanent(f"{self._what}: {_SECRET.sub('', str(error))}") from error
