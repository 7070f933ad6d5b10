from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.server import ThreadedMotoServer
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal, StorageEntry, StorageProvider, Tls
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_s3.plugin import S3Provider
from servery_storage_s3.settings import S3Settings, settings_of
from versitygw import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Unavailable, s3_served


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with s3_served(tmp_path_factory.mktemp("versitygw")) as url:
            yield url
    except Unavailable as reason:
        pytest.skip(f"{reason}: S3 is tested against moto alone")


@pytest.fixture(params=["moto", "versitygw"])
def endpoint(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    session = boto3.Session(ACCESS_KEY_ID, SECRET_ACCESS_KEY, region_name=REGION)
    bucket = session.resource("s3", endpoint_url=endpoint).create_bucket(Bucket="models")
    yield bucket
    for found in bucket.objects.all():
        found.delete()
    bucket.delete()


def config(endpoint: str, **fields: str) -> dict[str, str]:
    keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    return {"type": "s3", "endpoint_url": endpoint, "region": REGION, **keys, **fields}


def make_provider(endpoint: str, environment: dict[str, str] | None = None, **fields: str) -> S3Provider:
    return S3Provider({**(environment or {}), "STORAGE_CONFIG": json.dumps(config(endpoint, **fields))})


@pytest.fixture
def provider(endpoint: str) -> S3Provider:
    return make_provider(endpoint, bucket="models")


class Bucket:
    def __init__(self, bucket: Any, host: str = "models") -> None:
        self._bucket, self._host = bucket, host

    def uri(self, path: str) -> str:
        return f"s3://{self._host}/{path}"

    def put(self, path: str, content: bytes) -> None:
        self._bucket.put_object(Key=path, Body=content)

    def remove(self, path: str) -> None:
        self._bucket.Object(path).delete()


class TestS3(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, provider: S3Provider) -> StorageProvider:
        return provider

    @pytest.fixture
    def source(self, bucket: Any) -> Source:
        return Bucket(bucket)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return make_provider(f"http://127.0.0.1:{port}"), "s3://models/llm"


def test_bucket_may_be_said_by_the_credentials(provider: S3Provider, bucket: Any) -> None:
    bucket.put_object(Key="llm/a", Body=b"")
    assert [entry.path for entry in listed(provider, "s3://<bucket>/llm")] == ["a"]


def test_object_that_changed_meanwhile_is_refused(provider: S3Provider, bucket: Any) -> None:
    bucket.put_object(Key="llm/a.bin", Body=b"first")
    (entry,) = listed(provider, "s3://models/llm/a.bin")
    bucket.put_object(Key="llm/a.bin", Body=b"changed")
    with pytest.raises(Permanent, match="changed during the download"):
        fetched(provider, entry)


@pytest.mark.parametrize("name", ["a b.bin", "ä/ö+%20.bin", "x&y=z?.bin", "~'()!*.bin", "a:b@c,d;e.bin", "#1.bin"])
def test_object_of_any_name_is_read(provider: S3Provider, bucket: Any, name: str) -> None:
    bucket.put_object(Key=f"llm/{name}", Body=name.encode())
    (entry,) = listed(provider, "s3://models/llm")
    assert entry.path == name
    assert fetched(provider, entry) == name.encode()


def test_more_objects_than_a_page_are_listed(
    provider: S3Provider, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = provider._connections().client("models")

    def two_a_page(params: dict[str, Any], **_: object) -> None:
        params["MaxKeys"] = 2

    client.meta.events.register("provide-client-params.s3.ListObjectsV2", two_a_page)
    for number in range(5):
        bucket.put_object(Key=f"llm/{number}", Body=b"")
    assert [entry.path for entry in listed(provider, "s3://models/llm")] == ["0", "1", "2", "3", "4"]


def test_object_put_in_parts_is_read_whole(provider: S3Provider, bucket: Any) -> None:
    """Its ETag is no sum of its bytes."""
    parts = [b"a" * 5 * 2**20, b"b"]
    upload = bucket.Object("llm/parts").initiate_multipart_upload()
    etags = [upload.Part(number).upload(Body=part)["ETag"] for number, part in enumerate(parts, 1)]
    upload.complete(MultipartUpload={"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]})
    (entry,) = listed(provider, "s3://models/llm/parts")
    assert entry.version is not None
    assert entry.version.endswith('-2"')
    assert fetched(provider, entry) == b"".join(parts)


class TestFailures:
    def test_missing_bucket_is_said(self, provider: S3Provider, bucket: Any) -> None:
        with pytest.raises(Permanent, match=r"s3://nope/x: S3 bucket 'nope' does not exist\. \(NoSuchBucket: "):
            listed(provider, "s3://nope/x")

    def test_wrong_credentials_are_said(self, versitygw: str) -> None:
        provider = make_provider(versitygw, secret_access_key="wrong")
        with pytest.raises(
            Permanent, match=r"Invalid AWS credentials\. Verify AWS_ACCESS_KEY_ID .*SignatureDoesNotMatch"
        ):
            listed(provider, "s3://models/x")

    def test_anonymous_reader_of_a_closed_bucket_is_refused(self, versitygw: str) -> None:
        boto3.client(
            "s3",
            endpoint_url=versitygw,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
        ).create_bucket(Bucket="closed")
        with pytest.raises(Permanent, match=r"Access denied to S3 resource 'closed'\. Verify permissions\."):
            listed(make_provider(versitygw, anonymous="true"), "s3://closed/x")

    def test_no_credentials_at_all_are_said(
        self, versitygw: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(
            Permanent, match=r"S3 authentication failed\. Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY or use"
        ):
            listed(S3Provider({"AWS_ENDPOINT_URL": versitygw}), "s3://models/x")

    @pytest.mark.parametrize(
        ("uri", "words"), [("s3:///x", "names no bucket"), ("s3://a_b%/x", "Invalid bucket name")], ids=["none", "bad"]
    )
    def test_name_that_is_no_buckets_is_said(self, moto: str, uri: str, words: str) -> None:
        with pytest.raises(Permanent, match=words):
            listed(make_provider(moto), uri)

    def test_endpoint_that_is_no_url_is_said(self) -> None:
        with pytest.raises(Permanent, match="s3://models/x: Invalid endpoint: htp:/nowhere"):
            listed(make_provider("htp:/nowhere"), "s3://models/x")


def refused(provider: S3Provider, code: str, more: str = "", **headers: str) -> Transient | Permanent:
    body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message>{more}</Error>".encode()
    refusal = Refusal(url="http://x", status=400, reason="Bad", headers=headers, body=body)
    return provider.refused(StorageEntry(path="m", source="models/m"), refusal)


class TestRefused:
    @pytest.mark.parametrize(
        ("code", "kind", "words"),
        [
            ("SlowDown", Transient, "SlowDown: as the test wants it"),
            ("RequestTimeout", Transient, "RequestTimeout"),
            ("NoSuchKey", Permanent, "S3 resource 's3://models/m' not found."),
            ("AccessDenied", Permanent, "Access denied to S3 resource 'models'. Verify permissions. (AccessDenied: "),
            ("InvalidObjectState", Permanent, "lies in an archive"),
            ("RequestTimeTooSkewed", Permanent, "clock"),
            ("AllOfIt", Permanent, "S3 refused. (AllOfIt: as the test wants it)"),
        ],
    )
    def test_code_of_the_document_decides(self, moto: str, code: str, kind: type[Exception], words: str) -> None:
        said = refused(make_provider(moto), code)
        assert type(said) is kind
        assert words in str(said)

    def test_server_says_when_to_come_back(self, moto: str) -> None:
        said = refused(make_provider(moto), "SlowDown", **{"retry-after": "7"})
        assert isinstance(said, Transient)
        assert said.retry_after_seconds == 7.0

    def test_answer_without_a_document_means_what_http_says(self, moto: str) -> None:
        refusal = Refusal(url="http://x", status=502, reason="Bad Gateway", headers={}, body=b"<html>")
        said = make_provider(moto).refused(StorageEntry(path="m", source="models/m"), refusal)
        assert isinstance(said, Transient)
        assert "502 Bad Gateway" in str(said)

    @pytest.mark.parametrize("is_in_header", [True, False], ids=["header", "document"])
    def test_region_that_the_server_tells_is_the_next_signatures(self, moto: str, is_in_header: bool) -> None:
        provider = make_provider(moto)
        told = {"x-amz-bucket-region": "eu-west-3"} if is_in_header else {}
        more = "" if is_in_header else "<Region>eu-west-3</Region>"
        assert isinstance(refused(provider, "AuthorizationHeaderMalformed", more, **told), Transient)
        location = provider.locate(StorageEntry(path="m", source="models/m"))
        assert "/eu-west-3/s3/aws4_request" in location.headers["authorization"]
        again = refused(provider, "AuthorizationHeaderMalformed", more, **told)
        assert isinstance(again, Permanent), "it was asked there, and says the same"


def test_bucket_in_another_region_than_set_is_found(tmp_path: Path) -> None:
    try:
        with s3_served(tmp_path, "--region", "eu-central-1") as url:
            keys = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET_ACCESS_KEY}
            client = boto3.client("s3", endpoint_url=url, region_name="eu-central-1", **keys)
            client.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
            client.put_object(Bucket="far", Key="m", Body=b"abc")
            for uri, region in (("s3://far/m", "us-east-1"), ("s3://far@eu-central-1/m", "us-east-1")):
                provider = make_provider(url, region=region)
                (entry,) = listed(provider, uri)
                assert fetched(provider, entry) == b"abc"
    except Unavailable as reason:
        pytest.skip(str(reason))


class TestExpired:
    """A token that runs out in the middle: the SDK's chain is asked again."""

    @pytest.fixture
    def profile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        file = tmp_path / "credentials"
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_PROFILE", "of-the-test")
        return file

    def write(self, file: Path, token: str) -> None:
        keys = f"aws_access_key_id = key\naws_secret_access_key = secret\naws_session_token = {token}\n"
        file.write_text(f"[of-the-test]\n{keys}")

    def token(self, provider: S3Provider) -> str:
        return provider.locate(StorageEntry(path="m", source="models/m")).headers["x-amz-security-token"]

    def test_newer_credentials_sign_the_next_request(self, profile: Path) -> None:
        self.write(profile, "first")
        provider = S3Provider({"AWS_REGION": "us-east-1"})
        assert self.token(provider) == "first"
        self.write(profile, "second")
        assert self.token(provider) == "first"
        assert isinstance(refused(provider, "ExpiredToken", "<Token-0>first</Token-0>"), Transient)
        assert self.token(provider) == "second"
        late = refused(provider, "ExpiredToken", "<Token-0>first</Token-0>")
        assert isinstance(late, Transient), "another thread's request was signed before"

    def test_no_newer_credentials_are_final(self, profile: Path) -> None:
        self.write(profile, "first")
        provider = S3Provider({"AWS_REGION": "us-east-1"})
        assert self.token(provider) == "first"
        said = refused(provider, "ExpiredToken", "<Token-0>first</Token-0>")
        assert isinstance(said, Permanent)
        assert "The credentials have expired, and there are no newer ones." in str(said)


def test_role_of_a_web_identity_signs(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As EKS gives one to a service account."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text("of the account")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    provider = S3Provider({"AWS_REGION": "us-east-1"})
    headers = provider.locate(StorageEntry(path="m", source="models/m")).headers
    assert headers["x-amz-security-token"]
    assert "Credential=ASIA" in headers["authorization"], "a key of the role's session"


def test_certificate_is_trusted_by_the_bundle_alone(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    pem, pkcs8, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, none))
    (tmp_path / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    flags = ["--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    try:
        with s3_served(tmp_path, *flags) as url:
            with pytest.raises(
                Permanent, match=r"the certificate of https://.* is not trusted; give its CA in AWS_CA_BUNDLE"
            ):
                listed(make_provider(url), "s3://models/m")
            trusting = make_provider(url, {"AWS_CA_BUNDLE": str(tmp_path / "cert.pem")})
            with pytest.raises(Permanent, match="S3 bucket 'models' does not exist"):
                listed(trusting, "s3://models/m")
    except Unavailable as reason:
        pytest.skip(str(reason))


class TestUrls:
    """As Amazon spells them."""

    def url(self, **environment: str) -> str:
        keys = {"STORAGE_CONFIG": json.dumps({"access_key_id": "key", "secret_access_key": "secret"})}
        return S3Provider({**keys, **environment}).locate(StorageEntry(path="m", source="models/a b/m")).url

    def test_bucket_is_a_host_of_its_region(self) -> None:
        assert self.url(AWS_REGION="eu-west-1") == "https://models.s3.eu-west-1.amazonaws.com/a%20b/m"

    def test_accelerated_bucket_has_a_host_of_its_own(self) -> None:
        url = self.url(AWS_REGION="eu-west-1", S3_USE_ACCELERATE="true")
        assert url == "https://models.s3-accelerate.amazonaws.com/a%20b/m"

    @pytest.mark.parametrize(("virtual", "host"), [("false", "e:1/models"), ("true", "models.e:1")])
    def test_bucket_of_an_own_endpoint_is_a_path_or_a_host(self, virtual: str, host: str) -> None:
        url = self.url(AWS_ENDPOINT_URL="http://e:1", S3_USER_VIRTUAL_BUCKET=virtual)
        assert url == f"http://{host}/a%20b/m"

    def test_old_endpoint_with_a_region_takes_the_bucket_as_a_host(self) -> None:
        url = self.url(AWS_ENDPOINT_URL="https://s3.amazonaws.com", AWS_DEFAULT_REGION="eu-west-1")
        assert url == "https://models.s3.amazonaws.com/a%20b/m"


def test_bucket_as_a_host_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No resolver of this machine knows names below localhost."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host == "models.localhost" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with s3_served(tmp_path, "--virtual-domain", "localhost") as url:
            here = url.replace("127.0.0.1", "localhost")
            keys = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET_ACCESS_KEY}
            client = boto3.client("s3", endpoint_url=here, region_name=REGION, **keys)
            client.create_bucket(Bucket="models")
            client.put_object(Bucket="models", Key="llm/m", Body=b"abc")
            provider = make_provider(here, {"S3_USER_VIRTUAL_BUCKET": "true"})
            (entry,) = listed(provider, "s3://models/llm")
            assert provider.locate(entry).url == f"{here.replace('localhost', 'models.localhost')}/llm/m"
            assert fetched(provider, entry) == b"abc"
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_anonymous_reader_sends_no_signature(moto: str) -> None:
    provider = S3Provider({"AWS_ENDPOINT_URL": moto, "awsAnonymousCredential": "true"})
    location = provider.locate(StorageEntry(path="m", source="models/m", version='"1"'))
    assert location.headers == {"x-amz-checksum-mode": "ENABLED", "if-match": '"1"'}


def test_reader_who_pays_says_so_signed() -> None:
    environment = {"STORAGE_CONFIG": json.dumps(config("http://e:1")), "AWS_REQUEST_PAYER": "requester"}
    headers = S3Provider(environment).locate(StorageEntry(path="m", source="models/m")).headers
    assert headers["x-amz-request-payer"] == "requester"
    assert "x-amz-request-payer" in headers["authorization"]


class TestSettings:
    @pytest.mark.parametrize(
        ("environment", "endpoint"),
        [
            ({}, None),
            ({"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1"),
            ({"AWS_ENDPOINT_URL": "http://a:1", "S3_ENDPOINT": "b:1"}, "http://a:1"),
            ({"S3_ENDPOINT": "a:1"}, "https://a:1"),
            ({"S3_ENDPOINT": "a:1", "S3_USE_HTTPS": "0"}, "http://a:1"),
        ],
    )
    def test_endpoint_is_read_as_kserve_reads_it(self, environment: dict[str, str], endpoint: str | None) -> None:
        assert settings_of(environment).endpoint_url == endpoint

    def test_field_of_the_secret_goes_before_its_variable_and_the_manifests_before_the_secrets(self) -> None:
        settings = settings_of(
            {
                "STORAGE_CONFIG": json.dumps(config("http://secret", region="secret")),
                "STORAGE_OVERRIDE_CONFIG": json.dumps({"region": "manifest", "anonymous": "true"}),
                "AWS_ENDPOINT_URL": "http://variable",
                "AWS_DEFAULT_REGION": "variable",
            }
        )
        assert (settings.endpoint_url, settings.region) == ("http://secret", "manifest")
        assert settings.is_anonymous

    def test_secret_of_another_source_says_nothing_here(self) -> None:
        assert settings_of({"STORAGE_CONFIG": json.dumps({"type": "hdfs", "endpoint_url": "x"})}) == S3Settings()

    def test_variables_of_kserve(self) -> None:
        settings = settings_of(
            {
                "S3_USE_ACCELERATE": "true",
                "S3_USER_VIRTUAL_BUCKET": "1",
                "S3_CONNECT_TIMEOUT": "3",
                "S3_READ_TIMEOUT": "4",
                "S3_MAX_ATTEMPTS": "5",
                "awsAnonymousCredential": "True",
            }
        )
        assert settings == S3Settings(
            is_accelerated=True,
            addressing_style="virtual",
            connect_timeout_seconds=3.0,
            read_timeout_seconds=4.0,
            attempts=5,
            is_anonymous=True,
        )

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            pytest.param({}, "none", id="none"),
            pytest.param({"AWS_CA_BUNDLE": "{0}/own.crt", "CA_BUNDLE_CONFIGMAP_NAME": "c"}, "own.crt", id="own"),
            pytest.param(
                {"CA_BUNDLE_CONFIGMAP_NAME": "c", "CA_BUNDLE_VOLUME_MOUNT_POINT": "{0}"}, "cabundle.crt", id="mounted"
            ),
            pytest.param({"STORAGE_CONFIG": '{{"ca_bundle": "{0}/own.crt"}}'}, "own.crt", id="secret"),
            pytest.param({"AWS_CA_BUNDLE": "{0}/own.crt", "S3_VERIFY_SSL": "0"}, "off", id="variable off"),
            pytest.param({"STORAGE_CONFIG": '{{"verify_ssl": "false"}}'}, "off", id="secret off"),
        ],
    )
    def test_whom_it_trusts(self, tmp_path: Path, environment: dict[str, str], expected: str) -> None:
        for name in ("own.crt", "cabundle.crt"):
            (tmp_path / name).touch()
        tls = settings_of({name: value.format(tmp_path) for name, value in environment.items()}).tls
        wanted = {"none": Tls(), "off": Tls(verify=False)}
        assert tls == wanted.get(expected, Tls(ca_file=tmp_path / expected))

    @pytest.mark.parametrize(
        ("environment", "words"),
        [
            ({"AWS_CA_BUNDLE": "/no/where.crt"}, r"Failed to find ca bundle file\(/no/where.crt\)\."),
            ({"S3_READ_TIMEOUT": "soon"}, "S3_READ_TIMEOUT: 'soon' is no number"),
            ({"S3_CONNECT_TIMEOUT": "-1"}, "S3_CONNECT_TIMEOUT: '-1' is not above zero"),
            ({"STORAGE_CONFIG": "{"}, "STORAGE_CONFIG: no JSON"),
            ({"STORAGE_OVERRIDE_CONFIG": "[]"}, "STORAGE_OVERRIDE_CONFIG: not an object"),
        ],
    )
    def test_value_that_is_none_is_named(self, environment: dict[str, str], words: str) -> None:
        with pytest.raises(Permanent, match=words):
            listed(S3Provider(environment), "s3://models/x")
