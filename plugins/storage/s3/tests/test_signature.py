"""Our signatures beside botocore's."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from servery_storage_s3.connections import Connections
from servery_storage_s3.settings import S3Settings
from servery_storage_s3.signature import signed

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
NAMES = st.sampled_from(["x-amz-checksum-mode", "x-amz-request-payer", "if-match", "range"])


def by_the_sdk(url: str, headers: dict[str, str], keys: Credentials, region: str, now: datetime) -> dict[str, str]:
    request = AWSRequest("GET", url, headers)
    with patch("botocore.auth.get_current_datetime", lambda *_: now):
        S3SigV4Auth(keys, "s3", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(
    path=st.text(st.sampled_from("abcXYZ019/-_.~%20+=&'()"), max_size=30),
    headers=st.dictionaries(NAMES, st.text(PRINTABLE, min_size=1, max_size=20)),
    secret=SECRETS,
    token=st.none() | SECRETS,
    region=st.sampled_from(["us-east-1", "eu-central-1"]),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1)),
)
def test_signature_is_the_sdks(
    path: str, headers: dict[str, str], secret: str, token: str | None, region: str, now: datetime
) -> None:
    ours = signed(
        "models.example.com",
        f"/{path}",
        headers,
        access_key_id="id",
        secret_access_key=secret,
        session_token=token,
        region=region,
        now=now,
    )
    theirs = by_the_sdk(f"https://models.example.com/{path}", headers, Credentials("id", secret, token), region, now)
    assert ours == theirs


@pytest.mark.parametrize(
    "endpoint",
    [None, "http://127.0.0.1:9000", "https://s3.example.com:443", "https://s3.example.com/below", "http://[::1]:9000"],
)
@pytest.mark.parametrize("key", ["m", "a b/ü+~.bin", "//x"])
def test_signed_host_and_path_are_those_of_the_url(endpoint: str | None, key: str) -> None:
    settings = S3Settings(endpoint_url=endpoint, region="eu-west-3", access_key_id="id", secret_access_key="secret")
    url, ours = Connections(settings).get("models", key, {"if-match": '"1"'})
    now = datetime.strptime(ours["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert ours == by_the_sdk(url, {"if-match": '"1"'}, Credentials("id", "secret"), "eu-west-3", now)
    assert urlsplit(url).hostname in {"models.s3.eu-west-3.amazonaws.com", urlsplit(endpoint or "").hostname}
