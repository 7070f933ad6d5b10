"""A predictor of few words: an HTTP server on a thread that answers requests by a function."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answering:
    """Where it is, and what it was asked: path, headers and body of each request."""

    host: str
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextlib.contextmanager
def answering(answer: Callable[[Any], tuple[int, Any] | None]) -> Iterator[Answering]:
    """Serve until the end of the block; ``answer`` makes status and JSON of a request, or None to hang up.

    A GET has None as its body, and is not kept in ``asked``.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # its name
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.tell(answer(body))

        def do_GET(self) -> None:  # its name
            self.tell(answer(None))

        def tell(self, said: tuple[int, Any] | None) -> None:
            if said is None:
                self.close_connection = True
                return
            content = json.dumps(said[1]).encode()
            self.send_response(said[0])
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Answering(f"127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, name="answering")
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
