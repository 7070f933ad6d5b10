from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Site:
    """A web server that answers as it is told: path to body, and how often a path fails first."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failures: dict[str, list[int]] = {}
        self.cuts: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.url = ""


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def answer(self, *, head: bool) -> None:
            site.requests.append((self.command, self.path, self.headers.get("range")))
            if not head and site.failures.get(self.path):
                self.send_response(site.failures[self.path].pop(0))
                self.send_header("content-length", "0")
                self.end_headers()
                return
            body = site.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = 0
            if (wanted := self.headers.get("range")) is not None:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("etag", f'"{hash(body)}"')
            self.send_header("content-length", str(len(body) - start))
            if start:
                self.send_header("content-range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if head:
                return
            part = body[start:]
            if site.cuts.get(self.path):
                self.wfile.write(part[: site.cuts[self.path].pop(0)])
                self.close_connection = True
                return
            self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()
