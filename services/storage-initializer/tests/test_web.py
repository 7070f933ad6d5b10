"""Web servers as they are: what each says of a file, and what the provider makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from servery_sdk.digests import Digest, DigestAlgorithm, digest_of
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal, StorageEntry
from servery_sdk.testing.storage import fetched, listed
from servery_storage.web import HttpProvider

FILE = b"a model"


@dataclass
class Server:
    """Answers as ``reply`` says, by method, path and the request's headers: status, headers, body."""

    url: str = ""
    reply: Callable[[str, str, dict[str, str]], tuple[int, dict[str, str], bytes]] = lambda *_: (200, {}, FILE)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


def make_server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            served.seen.append((self.command, self.path, headers))
            status, told, body = served.reply(self.command, self.path, headers)
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **told}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        # A client that read no body keeps its connection, whose thread waits for more.
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        served.url = f"http://127.0.0.1:{listening.server_port}"
        yield served
        listening.shutdown()
        thread.join()


server = pytest.fixture(make_server)
other = pytest.fixture(make_server)


def entry_of(server: Server, path: str = "model.bin", **environment: str) -> StorageEntry:
    (entry,) = listed(HttpProvider(environment), f"{server.url}/{path}")
    return entry


class TestHead:
    def test_says_size_version_and_ranges(self, server: Server) -> None:
        server.reply = lambda *_: (200, {"etag": '"1"', "accept-ranges": "bytes"}, FILE)
        entry = entry_of(server)
        assert (entry.path, entry.size_bytes, entry.version, entry.has_ranges) == ("model.bin", 7, '"1"', True)
        assert [method for method, _, _ in server.seen] == ["HEAD"]

    def test_that_says_nothing_of_ranges_has_none(self, server: Server) -> None:
        assert not entry_of(server).has_ranges

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
    def test_that_is_refused_is_a_range_of_one_byte(self, server: Server, status: int) -> None:
        """A URL that is signed for GET gives no right to HEAD."""

        def reply(method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            if method == "HEAD":
                return status, {}, b""
            assert headers["range"] == "bytes=0-0"
            return 206, {"content-range": "bytes 0-0/7"}, FILE[:1]

        server.reply = reply
        entry = entry_of(server)
        assert (entry.size_bytes, entry.has_ranges) == (7, True)

    def test_that_is_refused_of_an_empty_file(self, server: Server) -> None:
        server.reply = lambda method, *_: (
            (405, {}, b"") if method == "HEAD" else (416, {"content-range": "bytes */0"}, b"")
        )
        assert entry_of(server).size_bytes == 0

    def test_that_is_refused_where_ranges_are_ignored(self, server: Server) -> None:
        server.reply = lambda method, *_: (405, {}, b"") if method == "HEAD" else (200, {}, FILE)
        entry = entry_of(server)
        assert (entry.size_bytes, entry.has_ranges) == (7, False)

    def test_of_an_answer_that_is_packed_says_no_size(self, server: Server) -> None:
        server.reply = lambda *_: (200, {"content-encoding": "gzip"}, FILE)
        assert entry_of(server).size_bytes is None

    @pytest.mark.parametrize(
        ("status", "kind", "words"),
        [
            (401, Permanent, r"HTTP authentication failed for 'http.*'\. Verify credentials\."),
            (403, Permanent, r"HTTP access denied for 'http.*'\. Verify permissions\."),
            (404, Permanent, r"HTTP resource not found at 'http.*/model.bin'\."),
            (410, Permanent, "answered 410 Gone"),
            (503, Transient, "answered 503 Service Unavailable"),
        ],
    )
    def test_and_get_that_are_refused_say_why(
        self, server: Server, status: int, kind: type[Exception], words: str
    ) -> None:
        server.reply = lambda *_: (status, {}, b"")
        with pytest.raises(kind, match=words):
            entry_of(server)
        refusal = Refusal(url="u", status=status, reason="", headers={}, body=b"")
        assert isinstance(HttpProvider().refused(StorageEntry(path="m", source="http://h/m"), refusal), kind)


class TestHeaders:
    """KServe makes ``<host>-headers`` of a secret's ``https-host`` and ``headers``."""

    def test_of_the_host_are_sent_with_every_request(self, server: Server) -> None:
        provider = HttpProvider({"127.0.0.1-headers": json.dumps({"X-Api-Key": "k", "Account": 7})})
        (entry,) = listed(provider, f"{server.url}/model.bin")
        assert fetched(provider, entry) == FILE
        assert [(seen["x-api-key"], seen["account"]) for _, _, seen in server.seen] == [("k", "7")] * 2

    def test_of_another_host_stay_here(self, server: Server) -> None:
        entry_of(server, **{"example.com-headers": '{"x-api-key": "k"}'})
        assert "x-api-key" not in server.seen[0][2]

    def test_may_be_the_secrets_own_lines(self, server: Server) -> None:
        entry_of(server, **{"127.0.0.1-headers": "X-Api-Key: k:1\n\nAccount: 7\n"})
        assert (server.seen[0][2]["x-api-key"], server.seen[0][2]["account"]) == ("k:1", "7")

    @pytest.mark.parametrize(("text", "words"), [("{", "no JSON"), ("[]", "neither a JSON object nor lines")])
    def test_that_are_none_are_said(self, server: Server, text: str, words: str) -> None:
        with pytest.raises(Permanent, match=f"127.0.0.1-headers: {words}"):
            entry_of(server, **{"127.0.0.1-headers": text})

    def test_name_and_password_of_a_url_are_basic_credentials(self, server: Server) -> None:
        provider = HttpProvider({})
        (entry,) = listed(provider, f"{server.url.replace('//', '//me:p%40ss@')}/model.bin")
        wanted = f"Basic {base64.b64encode(b'me:p@ss').decode()}"
        assert server.seen[0][2]["authorization"] == wanted
        location = provider.locate(entry)
        assert (location.url, location.headers["authorization"]) == (f"{server.url}/model.bin", wanted)


class TestRedirects:
    def test_are_followed_without_the_secrets_of_the_first_host(self, server: Server, other: Server) -> None:
        there = other.url.replace("127.0.0.1", "localhost")
        server.reply = lambda *_: (302, {"location": f"{there}/store/abc"}, b"")
        other.reply = lambda *_: (200, {"etag": '"1"'}, FILE)
        entry = entry_of(server, **{"127.0.0.1-headers": '{"x-api-key": "k"}'})
        assert (entry.path, entry.size_bytes, entry.source) == ("model.bin", 7, f"{server.url}/model.bin")
        assert server.seen[0][2]["x-api-key"] == "k"
        assert "x-api-key" not in other.seen[0][2]

    def test_without_an_end_are_said(self, server: Server) -> None:
        server.reply = lambda _, path, __: (302, {"location": f"{path}x"}, b"")
        with pytest.raises(Permanent, match="more than 10 redirects"):
            entry_of(server)

    def test_to_what_is_no_web_server_are_said(self, server: Server) -> None:
        server.reply = lambda *_: (302, {"location": "ftp://h/m"}, b"")
        with pytest.raises(Permanent, match=r"/model\.bin: .*ftp"):
            entry_of(server)


class TestName:
    @pytest.mark.parametrize(
        ("path", "disposition", "name"),
        [
            ("a/model.bin", None, "model.bin"),
            ("a/model.bin?v=1", None, "model.bin"),
            ("a/m%C3%B6del.bin", None, "m\u00f6del.bin"),
            ("download?id=1", 'attachment; filename="m.zip"', "m.zip"),
            ("download?id=1", "attachment; filename=m.zip", "m.zip"),
            ("download?id=1", "attachment; filename*=UTF-8''m%C3%B6del.zip", "m\u00f6del.zip"),
            ("download?id=1", 'attachment; filename="../../etc/m.zip"', "m.zip"),
            ("download?id=1", 'attachment; filename="C:\\dir\\m.zip"', "m.zip"),
            ("download?id=1", "attachment", "download"),
        ],
    )
    def test_is_the_servers_or_the_paths(self, server: Server, path: str, disposition: str | None, name: str) -> None:
        server.reply = lambda *_: (200, {"content-disposition": disposition} if disposition else {}, FILE)
        assert entry_of(server, path).path == name

    @pytest.mark.parametrize("path", ["", "a/"])
    def test_that_nobody_gives_is_said(self, server: Server, path: str) -> None:
        with pytest.raises(Permanent, match="No filename contained in URI: http"):
            entry_of(server, path)


class TestType:
    @pytest.mark.parametrize(
        ("path", "told", "words"),
        [
            (
                "m.zip",
                "text/html; charset=utf-8",
                "did not respond with any of following 'Content-Type': application/x-zip",
            ),
            ("m.tar.gz", "application/json", "did not respond with any of following 'Content-Type': application/x-tar"),
            ("m.bin", "text/html", "did not respond with 'Content-Type': 'application/octet-stream'"),
        ],
    )
    def test_of_another_kind_is_refused(self, server: Server, path: str, told: str, words: str) -> None:
        server.reply = lambda *_: (200, {"content-type": told}, FILE)
        with pytest.raises(Permanent, match=words):
            entry_of(server, path)

    @pytest.mark.parametrize(
        ("path", "told"),
        [
            ("m.zip", "application/zip"),
            ("m.zip", "application/octet-stream"),
            ("m.tgz", "application/gzip"),
            ("m.json", "application/json"),
            ("m.pmml", "text/xml"),
            ("m.html", "text/html"),
        ],
    )
    def test_of_the_kind_is_taken(self, server: Server, path: str, told: str) -> None:
        server.reply = lambda *_: (200, {"content-type": told}, FILE)
        assert entry_of(server, path).path == path


def b64(algorithm: str) -> str:
    return base64.b64encode(hashlib.new(algorithm, FILE).digest()).decode()


SHA256 = digest_of(DigestAlgorithm.SHA256, FILE)
MD5 = digest_of(DigestAlgorithm.MD5, FILE)
CRC32C = digest_of(DigestAlgorithm.CRC32C, FILE)


class TestDigest:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, None),
            ({"repr-digest": f"sha-256=:{b64('sha256')}:, sha-512=:{b64('sha512')}:"}, SHA256),
            ({"content-digest": f"sha-256=:{b64('sha256')}:"}, SHA256),
            ({"digest": f"SHA-256={b64('sha256')}"}, SHA256),
            ({"content-md5": b64("md5")}, MD5),
            ({"x-checksum-sha256": hashlib.sha256(FILE).hexdigest(), "x-checksum-md5": "00"}, SHA256),
            ({"x-checksum-md5": hashlib.md5(FILE).hexdigest()}, MD5),
            ({"x-goog-hash": f"crc32c={base64.b64encode(CRC32C.value).decode()}, md5={b64('md5')}"}, CRC32C),
            ({"x-goog-hash": f"md5={b64('md5')}", "x-goog-stored-content-encoding": "gzip"}, None),
            ({"content-md5": b64("md5"), "content-range": "bytes 0-6/7"}, None),
            ({"repr-digest": f"sha-256=:{b64('sha256')}:", "content-range": "bytes 0-6/7"}, SHA256),
            ({"x-checksum-sha256": "no sum"}, None),
            ({"digest": "sha-256=abc"}, None),
        ],
    )
    def test_is_what_the_server_gives_in_any_header(self, headers: dict[str, str], expected: Digest | None) -> None:
        assert HttpProvider().digest(StorageEntry(path="m", source="http://h/m"), headers) == expected

    def test_of_the_listing_is_kept(self, server: Server) -> None:
        server.reply = lambda *_: (200, {"repr-digest": f"sha-256=:{b64('sha256')}:"}, FILE)
        assert entry_of(server).digest == SHA256


@pytest.mark.parametrize(("etag", "sent"), [('"1"', '"1"'), ('W/"1"', None)], ids=["strong", "weak"])
def test_strong_etag_holds_the_file_to_its_version(server: Server, etag: str, sent: Any) -> None:
    server.reply = lambda *_: (200, {"etag": etag}, FILE)
    assert HttpProvider().locate(entry_of(server)).headers.get("if-match") == sent
