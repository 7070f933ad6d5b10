"""What S3's refusals mean to who serves a model: KServe's sentences first, the server's own words behind.

Imports the SDK: only the provider's calls import this.
"""

from __future__ import annotations

from servery_sdk.errors import Permanent, Transient

_TRANSIENT = frozenset(
    {
        "500",
        "502",
        "503",
        "504",
        "InternalError",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect", "301", "307"})
_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"})
_NO_CREDENTIALS = (
    "S3 authentication failed. Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY or use awsAnonymousCredential=true."
)


def failure(
    what: str, bucket: str, code: str, words: str, *, retry_after_seconds: float | None = None
) -> Transient | Permanent:
    """Return what the server's ``code`` means for ``what``, which is a URI."""
    said = f"({code}: {words})" if words else f"({code})"
    if code in _TRANSIENT:
        return Transient(f"{what}: {code}: {words}", retry_after_seconds=retry_after_seconds)
    if code == "PreconditionFailed":
        return Permanent(f"{what}: the object changed during the download {said}")
    return Permanent(f"{what}: {_sentence(what, bucket, code)} {said}")


def _sentence(what: str, bucket: str, code: str) -> str:
    if code in EXPIRED:
        return "S3 authentication failed. The credentials have expired, and there are no newer ones."
    if code in _CREDENTIALS:
        return "Invalid AWS credentials. Verify AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    match code:
        case "NoSuchBucket":
            return f"S3 bucket '{bucket}' does not exist."
        case "NoSuchKey" | "404":
            return f"S3 resource '{what}' not found."
        case "AccessDenied" | "403":
            return f"Access denied to S3 resource '{bucket}'. Verify permissions."
        case "RequestTimeTooSkewed":
            return "S3 authentication failed. The clock of this machine is wrong."
        case "InvalidObjectState":
            return "The object lies in an archive; restore it first."
    if code in ELSEWHERE:
        return f"S3 bucket '{bucket}' is in another region. Set AWS_DEFAULT_REGION."
    return "S3 refused."


class translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours.

    Args:
        what: The URI.
        endpoint: Where the SDK asks, if it is not Amazon's own.
    """

    def __init__(self, what: str, bucket: str, endpoint: str | None) -> None:
        self._what, self._bucket, self._endpoint = what, bucket, endpoint or "Amazon S3"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        from botocore import exceptions as sdk

        if isinstance(error, sdk.ClientError):
            said = error.response.get("Error", {})
            code, words = said.get("Code", ""), said.get("Message", "")
            if error.operation_name.startswith("AssumeRole") and code not in _TRANSIENT:
                raise Permanent(f"{self._what}: S3 authentication failed. {error}") from error
            raise failure(self._what, self._bucket, code, words) from error
        if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError):
            raise Permanent(f"{self._what}: {_NO_CREDENTIALS} ({error})") from error
        if isinstance(error, sdk.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            advice = "give its CA in AWS_CA_BUNDLE, or set S3_VERIFY_SSL=0"
            raise Permanent(
                f"{self._what}: the certificate of {self._endpoint} is not trusted; {advice}: {error}"
            ) from error
        if isinstance(error, sdk.HTTPClientError | sdk.ConnectionError | sdk.IncompleteReadError):
            raise Transient(f"{self._what}: Failed to connect to S3 endpoint '{self._endpoint}'. ({error})") from error
        if isinstance(error, sdk.CredentialRetrievalError | sdk.MetadataRetrievalError):
            raise Transient(f"{self._what}: S3 authentication failed. {error}") from error
        if isinstance(error, sdk.BotoCoreError | ValueError):
            raise Permanent(f"{self._what}: {error}") from error
