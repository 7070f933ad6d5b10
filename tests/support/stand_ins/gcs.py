"""A stand-in of Google Cloud Storage on this machine: the calls of its JSON API that reading and putting need."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from servery_sdk.digests import DigestAlgorithm, digest_of


@dataclass
class Buckets:
    """Objects by ``bucket/name``, each with its generation; ``failures`` are answered first.

    Attributes:
        made: Buckets that objects may be put into by the API.
        token: Who sends another is refused; empty lets everybody read.
        packed: Objects that are stored as gzip, and sent unpacked.
    """

    url: str = ""
    token: str = ""
    packed: set[str] = field(default_factory=set)
    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    generations: Iterator[int] = field(default_factory=partial(itertools.count, 1))

    def put(self, path: str, content: bytes) -> None:
        self.objects[path] = (content, next(self.generations))

    def remove(self, path: str) -> None:
        del self.objects[path]


@contextmanager
def buckets_served() -> Iterator[Buckets]:
    """Answer for the buckets at ``url`` until the block ends."""
    buckets = Buckets()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, buckets)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        buckets.url = f"http://127.0.0.1:{server.server_port}"
        yield buckets
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Lists objects, describes one, and sends one or a range of it.

    Source: Cloud Storage JSON API, "Objects: list" and "Objects: get".
    """

    def __init__(self, buckets: Buckets, *arguments: Any) -> None:
        self._buckets = buckets
        super().__init__(*arguments)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if found := re.fullmatch(r"/storage/v1/b/([^/]+)", url.path):
            # The SDK asks on the side where a bucket lies, for its telemetry.
            self._send(json.dumps({"kind": "storage#bucket", "name": found[1]}).encode())
        elif self._buckets.token and self.headers.get("authorization") != f"Bearer {self._buckets.token}":
            self._fail(401)
        elif self._buckets.failures:
            self._fail(self._buckets.failures.pop(0))
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)/o", url.path):
            self._list(f"{found[1]}/", query.get("prefix", ""))
        elif found := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", url.path):
            self._object(f"{found[1]}/{unquote(found[2])}", query)
        else:
            self._fail(404)

    def do_POST(self) -> None:
        """Source: "Objects: insert", ``uploadType=multipart``."""
        body = self.rfile.read(int(self.headers["content-length"]))
        found = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", urlsplit(self.path).path)
        if found is None or found[1] not in self._buckets.made:
            self._fail(404)
            return
        boundary = re.search(r'boundary="?([^";]+)', self.headers["content-type"])
        assert boundary is not None
        _, described, content, _ = body.split(b"--" + boundary[1].strip("'").encode())
        name = json.loads(described.partition(b"\r\n\r\n")[2])["name"]
        data = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        self._buckets.put(f"{found[1]}/{name}", data)
        crc32c = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        self._send(json.dumps({"name": name, "bucket": found[1], "size": str(len(data)), "crc32c": crc32c}).encode())

    def _list(self, bucket: str, prefix: str) -> None:
        if not any(path.startswith(bucket) for path in self._buckets.objects):
            self._fail(404)
            return
        found = [self._item(path) for path in sorted(self._buckets.objects) if path.startswith(bucket + prefix)]
        self._send(json.dumps({"kind": "storage#objects", "items": found}).encode())

    def _object(self, path: str, query: dict[str, str]) -> None:
        content, generation = self._buckets.objects.get(path, (b"", 0))
        if not generation or query.get("generation", str(generation)) != str(generation):
            self._fail(404)
        elif query.get("alt") == "media":
            self._send(gzip.decompress(content) if path in self._buckets.packed else content, generation)
        else:
            self._send(json.dumps(self._item(path)).encode())

    def _item(self, path: str) -> dict[str, str]:
        content, generation = self._buckets.objects[path]
        bucket, _, name = path.partition("/")
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "crc32c": base64.b64encode(digest_of(DigestAlgorithm.CRC32C, content).value).decode(),
            **({"contentEncoding": "gzip"} if path in self._buckets.packed else {}),
        }

    def _send(self, body: bytes, generation: int | None = None) -> None:
        status, headers = 200, {"content-type": "application/octet-stream"}
        if generation is not None:
            headers["x-goog-generation"] = str(generation)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            if start >= len(body):
                self._fail(416)
                return
            status, headers["content-range"] = 206, f"bytes {start}-{end}/{len(body)}"
            body = body[start : end + 1]
        self._answer(status, headers, body)

    def _fail(self, status: int) -> None:
        error = {"error": {"code": status, "message": "as the test wants it"}}
        self._answer(status, {"content-type": "application/json"}, json.dumps(error).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""
