"""What Google's refusals mean to who serves a model: KServe's sentences first, the server's own words behind.

Imports the SDK: only the provider's calls import this.
"""

from __future__ import annotations

from http import HTTPStatus

from google.api_core import exceptions as sdk
from google.auth.exceptions import GoogleAuthError, TransportError
from servery_sdk.errors import Permanent, Transient

_ADVICE = "Verify GOOGLE_APPLICATION_CREDENTIALS or use anonymous access."


def sentence(status: int, bucket: str, what: str) -> str:
    """Return what the status says of ``what``, which is a URI."""
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return f"GCS authentication failed. {_ADVICE}"
        case HTTPStatus.FORBIDDEN:
            return f"Access denied to GCS resource '{bucket}'. Verify permissions."
        case HTTPStatus.NOT_FOUND:
            return f"GCS resource '{what}' not found."
        case HTTPStatus.PRECONDITION_FAILED:
            return "The object changed during the download."
    return "GCS refused."


class translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours; ``what`` is the URI that was asked for."""

    def __init__(self, what: str, bucket: str) -> None:
        self._what, self._bucket = what, bucket

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sdk.ServerError | sdk.TooManyRequests | sdk.RetryError):
            raise Transient(f"{self._what}: {error}") from error
        # The SDK lets what its HTTP library raises pass, all of it OSErrors.
        if isinstance(error, TransportError | OSError):
            raise Transient(f"{self._what}: Failed to connect to GCS endpoint. ({error})") from error
        if isinstance(error, GoogleAuthError):
            raise Permanent(f"{self._what}: GCS authentication failed. {_ADVICE} ({error})") from error
        if isinstance(error, sdk.GoogleAPICallError):
            said = sentence(error.code or 0, self._bucket, self._what)
            raise Permanent(f"{self._what}: {said} ({error})") from error
        if isinstance(error, ValueError):
            raise Permanent(f"{self._what}: {error}") from error
