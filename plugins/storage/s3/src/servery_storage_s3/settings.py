"""What the environment says of an S3 server, in the AWS SDK's words and in KServe's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from servery_sdk.errors import Permanent
from servery_sdk.storage import Tls

CA_BUNDLE_FILE = "cabundle.crt"
_LEGACY_ENDPOINT = "https://s3.amazonaws.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """How to reach and to ask; what is None is the SDK's to find.

    Attributes:
        bucket: For URIs that name none, ``s3://<bucket>/…``.
        attempts: Of one listing request. The engine tries again by itself, and more patiently.
        is_requester_paying: Of buckets whose readers pay.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    bucket: str = ""
    is_anonymous: bool = False
    is_accelerated: bool = False
    is_requester_paying: bool = False
    addressing_style: Literal["auto", "virtual"] = "auto"
    tls: Tls = Tls()  # noqa: RUF009  # frozen
    connect_timeout_seconds: float = 15.0
    read_timeout_seconds: float = 30.0
    attempts: int = 1


def settings_of(environment: Mapping[str, str]) -> S3Settings:
    """Return what ``environment`` says; a field of ``STORAGE_CONFIG`` goes before its variable.

    Raises:
        Permanent: A value is none of its kind, or the CA bundle is not there.

    Source: KServe kserve_storage.py, ``_update_with_storage_spec``, ``get_S3_config`` and ``_get_s3_client_kwargs``.
    """
    config = _storage_config(environment)

    def said(field: str, *variables: str) -> str | None:
        return next((v for v in (config.get(field), *map(environment.get, variables)) if v), None)

    endpoint = said("endpoint_url", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or _endpoint(environment)
    region = said("region", "AWS_REGION", "AWS_DEFAULT_REGION")
    # The old global endpoint redirects to a bucket's region by the bucket's own name only.
    is_virtual = _is_true(environment.get("S3_USER_VIRTUAL_BUCKET")) or (
        endpoint == _LEGACY_ENDPOINT and region not in {None, "us-east-1"}
    )
    return S3Settings(
        endpoint_url=endpoint,
        region=region,
        access_key_id=config.get("access_key_id"),
        secret_access_key=config.get("secret_access_key"),
        session_token=config.get("session_token"),
        bucket=config.get("bucket", ""),
        is_anonymous=_is_true(said("anonymous", "awsAnonymousCredential")),
        is_accelerated=_is_true(environment.get("S3_USE_ACCELERATE")),
        is_requester_paying=environment.get("AWS_REQUEST_PAYER", "").lower() in {"requester", "true", "1"},
        addressing_style="virtual" if is_virtual else "auto",
        tls=_tls(said("verify_ssl", "S3_VERIFY_SSL"), said("ca_bundle", "AWS_CA_BUNDLE"), environment),
        connect_timeout_seconds=_number(environment, "S3_CONNECT_TIMEOUT", 15.0),
        read_timeout_seconds=_number(environment, "S3_READ_TIMEOUT", 30.0),
        attempts=int(_number(environment, "S3_MAX_ATTEMPTS", 1.0)),
    )


def _storage_config(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the secret's fields, those of the manifest on top of them; none where they are of another source."""
    config: dict[str, str] = {}
    for variable in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"):
        try:
            fields = json.loads(environment.get(variable) or "{}")
        except json.JSONDecodeError as error:
            raise Permanent(f"{variable}: no JSON: {error}") from error
        if not isinstance(fields, dict):
            raise Permanent(f"{variable}: not an object of fields, as endpoint_url and region")
        config.update({name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()})
    return config if config.get("type", "s3") == "s3" else {}


def _endpoint(environment: Mapping[str, str]) -> str | None:
    endpoint = environment.get("S3_ENDPOINT")
    if not endpoint or "://" in endpoint:
        return endpoint or None
    return f"{'http' if _is_false(environment.get('S3_USE_HTTPS')) else 'https'}://{endpoint}"


def _tls(verify: str | None, bundle: str | None, environment: Mapping[str, str]) -> Tls:
    if _is_false(verify):
        return Tls(verify=False)
    if bundle is None and environment.get("CA_BUNDLE_CONFIGMAP_NAME"):
        bundle = str(Path(environment.get("CA_BUNDLE_VOLUME_MOUNT_POINT", "/etc/ssl/custom-certs")) / CA_BUNDLE_FILE)
    if bundle is None:
        return Tls()
    if not Path(bundle).exists():
        raise Permanent(f"Failed to find ca bundle file({bundle}).")
    return Tls(ca_file=Path(bundle))


def _number(environment: Mapping[str, str], variable: str, default: float) -> float:
    text = environment.get(variable) or str(default)
    try:
        number = float(text)
    except ValueError as error:
        raise Permanent(f"{variable}: {text!r} is no number") from error
    if not number > 0:
        raise Permanent(f"{variable}: {text!r} is not above zero")
    return number


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in {"1", "true"}


def _is_false(value: str | None) -> bool:
    return (value or "").lower() in {"0", "false"}
