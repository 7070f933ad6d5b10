"""Files of any web server."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx
from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageUri, Tls

from servery_storage.wire import context_of

MAX_REDIRECTS = 10
TIMEOUT_SECONDS = 30.0
_ARCHIVES = {
    "application/zip": ("application/x-zip-compressed", "application/zip", "application/zip-compressed"),
    "application/x-tar": ("application/x-tar", "application/x-gtar", "application/x-gzip", "application/gzip"),
}
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_SENTENCES = {
    401: "HTTP authentication failed for '{}'. Verify credentials.",
    403: "HTTP access denied for '{}'. Verify permissions.",
    404: "HTTP resource not found at '{}'.",
}
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
_SUM = re.compile(r"([A-Za-z0-9-]+)=:?([A-Za-z0-9+/]+=*):?")
# Of sums that a server gives side by side, the first of these.
_ALGORITHMS = {
    "sha-256": DigestAlgorithm.SHA256,
    "sha-512": DigestAlgorithm.SHA512,
    "crc32c": DigestAlgorithm.CRC32C,
    "md5": DigestAlgorithm.MD5,
    "sha": DigestAlgorithm.SHA1,
}


class HttpProvider:
    """``http(s)://`` URIs: one file, which may be an archive.

    Environment: ``<host>-headers``, headers for that host: a JSON object, as KServe makes it of a secret, or the
    secret's own lines ``name: value``.
    """

    name = "http"
    schemes = frozenset({"http", "https"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the one file of the URL, named as the server or the path names it."""
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, verify=context_of(Tls())) as client:
                told = await self._asked(client, "HEAD", uri.text)
                if not told.is_success:
                    # Some answer GET alone; a URL that is signed for GET has no right to HEAD.
                    told = await self._asked(client, "GET", uri.text)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _unreachable(uri.text, error) from error
        is_empty = told.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and _size(told) == 0
        if not told.is_success and not is_empty:
            raise _refused(uri.text, told)
        name = _name(uri, told.headers)
        _check_type(uri.text, name, told.headers.get("content-type", ""))
        yield StorageEntry(
            path=name,
            source=uri.text,
            size_bytes=_size(told),
            version=told.headers.get("etag"),
            digest=_digest(told.headers, is_whole="content-range" not in told.headers),
            has_ranges=told.status_code == HTTPStatus.PARTIAL_CONTENT
            or told.headers.get("accept-ranges", "").lower() == "bytes",
        )

    def locate(self, entry: StorageEntry) -> Location:
        """Return the URL; where the server gave a strong ETag, it must still be of that file."""
        url, headers = self._request(entry.source)
        if entry.version is not None and not entry.version.startswith("W/"):
            headers["if-match"] = entry.version
        return Location(url=url, headers=headers)

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what the status means by HTTP's own words, and by KServe's."""
        return refusal.failure(entry.source, _SENTENCES.get(refusal.status, "").format(entry.source))

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the sum that the server gives, in whichever header."""
        return entry.digest or _digest(headers, is_whole="content-range" not in headers)

    async def _asked(self, client: httpx.AsyncClient, method: str, url: str) -> httpx.Response:
        """Return the answer at the end of all redirects, its body unread."""
        plain, headers = self._request(url)
        headers["accept-encoding"] = "identity"
        if method == "GET":
            headers["range"] = "bytes=0-0"
        request = client.build_request(method, plain, headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            response = await client.send(request, stream=True)
            await response.aclose()
            if response.next_request is None:
                return response
            # Secrets are for the host that they were given for.
            _, further = self._request(str(response.next_request.url))
            kept = {name: headers[name] for name in ("accept-encoding", "range") if name in headers}
            is_elsewhere = _origin(response.next_request.url) != _origin(request.url)
            sent = further | kept if is_elsewhere else headers
            request = client.build_request(response.next_request.method, response.next_request.url, headers=sent)
        raise Permanent(f"{url}: more than {MAX_REDIRECTS} redirects, the last to {request.url}")

    def _request(self, url: str) -> tuple[str, dict[str, str]]:
        """Return ``url`` without a name and a password, and the headers of its host, theirs among them."""
        parts = urlsplit(url)
        variable = f"{parts.hostname}-headers"
        headers = _headers(variable, self._environment.get(variable, ""))
        if "@" not in parts.netloc:
            return url, headers
        user, _, host = parts.netloc.rpartition("@")
        headers.setdefault("authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
        return urlunsplit(parts._replace(netloc=host)), headers


def _headers(variable: str, text: str) -> dict[str, str]:
    """Return the headers that ``text`` gives: KServe's JSON object, or the lines ``name: value`` of a secret.

    Raises:
        Permanent: It is neither.
    """
    if not text.lstrip().startswith("{"):
        lines = [line.partition(":") for line in text.splitlines() if line.strip()]
        if not all(sign for _, sign, _ in lines):
            raise Permanent(f"{variable}: neither a JSON object nor lines of the form name: value")
        return {name.strip().lower(): value.strip() for name, _, value in lines}
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise Permanent(f"{variable}: no JSON: {error}") from error
    return {str(name).lower(): str(value) for name, value in given.items()}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _size(told: httpx.Response) -> int | None:
    """Return the file's bytes; a compressed answer's are not."""
    if "content-encoding" in told.headers:
        return None
    if total := _TOTAL.fullmatch(told.headers.get("content-range", "")):
        return int(total[1])
    size = told.headers.get("content-length", "")
    return int(size) if size.isdigit() and told.status_code == HTTPStatus.OK else None


def _name(uri: StorageUri, headers: Mapping[str, str]) -> str:
    """Return the file's name, without any folders.

    Raises:
        Permanent: Neither the server nor the URI gives one.
    """
    message = Message()
    message["content-disposition"] = headers.get("content-disposition", "")
    given = PurePosixPath((message.get_filename() or "").replace("\\", "/")).name
    name = given or uri.path.rpartition("/")[2]
    if not name or name == "..":
        raise Permanent(f"No filename contained in URI: {uri}; end its path with one")
    return name


def _check_type(url: str, name: str, told: str) -> None:
    """Raise where a page came in place of the file: of a login, or of an error that says 200.

    Source: KServe kserve_storage.py, ``_download_from_uri``, which takes ``application/octet-stream`` alone.
    """
    guessed, told = mimetypes.guess_type(name)[0] or "", told.partition(";")[0].strip().lower()
    if allowed := _ARCHIVES.get(guessed):
        if told and told not in {*allowed, "application/octet-stream", "binary/octet-stream"}:
            types = ", ".join(allowed)
            raise Permanent(f"URI: {url} did not respond with any of following 'Content-Type': {types}; it is {told}")
    elif told in _PAGES and guessed not in _PAGES:
        raise Permanent(
            f"URI: {url} did not respond with 'Content-Type': 'application/octet-stream'; it is a page, {told}"
        )


def _digest(headers: Mapping[str, str], *, is_whole: bool) -> Digest | None:
    """Return the file's sum, of all the headers in which servers give one.

    Args:
        is_whole: ``Content-Digest`` and ``Content-MD5`` are of the bytes sent.

    Source: RFC 9530 (Repr-Digest, Content-Digest), RFC 3230 (Digest), Artifactory's and Nexus' X-Checksum headers,
    Cloud Storage's X-Goog-Hash.
    """
    said = [headers.get("repr-digest", ""), headers.get("digest", "")]
    if headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        said.append(headers.get("x-goog-hash", ""))
    if is_whole:
        said.append(headers.get("content-digest", ""))
        said.append(f"md5={headers.get('content-md5', '')}")
    sums = {name.lower(): value for text in said for name, value in _SUM.findall(text)}
    for name, algorithm in _ALGORITHMS.items():
        hexadecimal = headers.get(f"x-checksum-{algorithm}", "")
        with suppress(ValueError):  # A server's word for something else.
            if hexadecimal:
                return Digest.of_hex(algorithm, hexadecimal)
            if name in sums:
                return Digest.of_base64(algorithm, sums[name])
    return None


def _unreachable(url: str, error: Exception) -> Permanent | Transient:
    said = f"{url}: Failed to connect to HTTP endpoint. ({type(error).__name__}: {error})"
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Permanent(said)
    return Transient(said)


def _refused(url: str, told: httpx.Response) -> Permanent | Transient:
    refusal = Refusal(
        url=str(told.url), status=told.status_code, reason=told.reason_phrase, headers=told.headers, body=b""
    )
    return refusal.failure(url, _SENTENCES.get(told.status_code, "").format(url))
