"""A stand-in of Azure Files on this machine, which Azurite has none of: the three calls that reading needs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Shares:
    """Files by ``share/path``, folders by ``share/path/``.

    Attributes:
        failures: Answered first.
        seen: Method, path, query and headers of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    failures: list[int] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> None:
        folder = path.rpartition("/")[0]
        while folder:
            self.folders.add(f"{folder}/")
            folder = folder.rpartition("/")[0]
        if not path.endswith("/"):
            self.files[path] = content

    def remove(self, path: str) -> None:
        del self.files[path]


@contextmanager
def shares_served() -> Iterator[Shares]:
    """Answer for the shares at ``url`` until the block ends."""
    shares = Shares()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, shares)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        shares.url = f"http://127.0.0.1:{server.server_port}"
        yield shares
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Lists a directory, describes a file, and sends one or a range of it.

    Source: Azure Files REST API, "List Directories and Files", "Get File Properties" and "Get File".
    """

    def __init__(self, shares: Shares, *arguments: Any) -> None:
        self._shares = shares
        super().__init__(*arguments)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path).strip("/"), {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._shares.seen.append((self.command, path, query, headers))
        if "sig" not in query and "authorization" not in headers:
            self._fail(401, "NoAuthenticationInformation")
        elif self._shares.failures:
            self._fail(self._shares.failures.pop(0), "AsTheTestWantsIt")
        elif query.get("comp") == "list":
            self._list(path)
        elif path in self._shares.files:
            self._send(self._shares.files[path])
        else:
            self._fail(404, "ResourceNotFound")

    do_HEAD = do_GET  # noqa: N815  # the library's word

    def _list(self, path: str) -> None:
        folder = f"{path}/"
        if folder not in self._shares.folders:
            self._fail(404, "ResourceNotFound" if "/" in path else "ShareNotFound")
            return
        items = []
        for found in sorted({*self._shares.files, *self._shares.folders}):
            name = found.removeprefix(folder)
            if not found.startswith(folder) or not name or "/" in name.rstrip("/"):
                continue
            if name.endswith("/"):
                items.append(f"<Directory><Name>{escape(name[:-1])}</Name><Properties/></Directory>")
            else:
                content = self._shares.files[found]
                told = f"<Content-Length>{len(content)}</Content-Length><Etag>{_etag(content)}</Etag>"
                items.append(f"<File><Name>{escape(name)}</Name><Properties>{told}</Properties></File>")
        share, _, below = path.partition("/")
        place = f'ServiceEndpoint="{self._shares.url}/" ShareName="{share}" DirectoryPath="{escape(below)}"'
        entries = f"<Entries>{''.join(items)}</Entries><NextMarker/>"
        body = f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults {place}>{entries}</EnumerationResults>'
        self._answer(200, {"content-type": "application/xml"}, body.encode())

    def _send(self, content: bytes) -> None:
        headers = {"etag": _etag(content), "x-ms-type": "File", "last-modified": "Sat, 21 Nov 2026 00:00:00 GMT"}
        wanted = self.headers.get("range")
        if wanted is None:
            self._answer(200, headers, content)
            return
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        said = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206, {**headers, "content-range": said}, content[start:])

    def _fail(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
        self._answer(status, {"content-type": "application/xml", "x-ms-error-code": code}, body.encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"x-ms-version": "2025-01-05", **headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def _etag(content: bytes) -> str:
    return f'"0x{hashlib.sha256(content).hexdigest()[:16].upper()}"'
