"""A stand-in of a Hadoop cluster: namenodes that answer WebHDFS, and a datanode that they send to.

Source: Hadoop, "WebHDFS REST API".
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Refusal = tuple[int, str, str]


@dataclass
class Cluster:
    """Files by path, with the time at which each was written.

    Attributes:
        urls: Of the namenodes; ``active`` is one's number.
        refusals: What the next requests of an operation are answered.
        admits: Whether an ``Authorization``, if any, opens a namenode.
        seen: The namenodes' requests: number, operation, query and headers.
        cut: After how many bytes the datanode hangs up, once.
    """

    urls: list[str] = field(default_factory=list)
    data_url: str = ""
    active: int = 0
    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    refusals: list[tuple[str, Refusal]] = field(default_factory=list)
    admits: Callable[[str], bool] = lambda _: True
    seen: list[tuple[int, str, Mapping[str, str], Mapping[str, str]]] = field(default_factory=list)
    cut: int | None = None
    clock: int = 0

    def put(self, path: str, content: bytes) -> None:
        self.clock += 1
        self.files[path] = self.clock, content

    def status(self, path: str, suffix: str = "") -> dict[str, Any] | None:
        if path in self.files:
            written, content = self.files[path]
            return {
                "type": "FILE",
                "length": len(content),
                "modificationTime": written,
                "pathSuffix": suffix,
                "fileId": 7,
            }
        if path == "/" or any(file.startswith(f"{path.rstrip('/')}/") for file in self.files):
            return {"type": "DIRECTORY", "length": 0, "modificationTime": 0, "pathSuffix": suffix, "fileId": 1}
        return None

    def children(self, path: str) -> list[dict[str, Any] | None]:
        start = "/" if path == "/" else f"{path}/"
        names = {PurePosixPath(file[len(start) :]).parts[0] for file in self.files if file.startswith(start)}
        return [self.status(start + name, name) for name in sorted(names)]


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, cluster: Cluster, number: int, *arguments: Any) -> None:
        self.cluster, self.number = cluster, number
        super().__init__(*arguments)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.ask(unquote(url.path).removeprefix("/webhdfs/v1") or "/", query)

    def ask(self, path: str, query: Mapping[str, str]) -> None:
        operation = query["op"]
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.cluster.seen.append((self.number, operation, query, headers))
        refusal = next((refusal for refusal in self.cluster.refusals if refusal[0] == operation), None)
        status = self.cluster.status(path)
        if refusal is not None:
            self.cluster.refusals.remove(refusal)
            self.refuse(*refusal[1])
        elif self.cluster.active != self.number:
            self.refuse(403, "StandbyException", "Operation category READ is not supported in state standby")
        elif not self.cluster.admits(headers.get("authorization", "")):
            self.answer(401, {"www-authenticate": "Negotiate"}, b"Authentication required")
        elif operation == "GETHOMEDIRECTORY":
            self.tell({"Path": f"/user/{query.get('doas') or query.get('user.name', 'dr.who')}"})
        elif status is None:
            self.refuse(404, "FileNotFoundException", f"File does not exist: {path}\nat org.apache.hadoop")
        elif operation == "GETFILESTATUS":
            self.tell({"FileStatus": status})
        elif operation == "LISTSTATUS":
            self.tell({"FileStatuses": {"FileStatus": self.cluster.children(path)}})
        else:
            assert operation == "OPEN"
            place = f"{self.cluster.data_url}{self.path}"
            self.answer(307, {"location": place}, b"")

    def tell(self, body: Any) -> None:
        self.answer(200, {"content-type": "application/json"}, json.dumps(body).encode())

    def refuse(self, status: int, exception: str, message: str) -> None:
        body = {"RemoteException": {"exception": exception, "javaClassName": f"x.{exception}", "message": message}}
        self.answer(status, {"content-type": "application/json"}, json.dumps(body).encode())

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.cluster.cut is not None and status == 200 and isinstance(self, _DataHandler):
            body, self.cluster.cut, self.close_connection = body[: self.cluster.cut], None, True
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class _DataHandler(_Handler):
    def ask(self, path: str, query: Mapping[str, str]) -> None:
        assert "authorization" not in self.headers, "a ticket is the namenode's"
        self.answer(200, {}, self.cluster.files[path][1][int(query["offset"]) :])


@contextmanager
def _served(handler: Callable[..., BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def cluster_served(namenodes: int, tls: ssl.SSLContext | None = None) -> Iterator[Cluster]:
    """Serve namenodes and a datanode; ``tls`` for all of them."""
    cluster = Cluster()
    with ExitStack() as stack:
        cluster.urls = [
            stack.enter_context(_served(partial(_Handler, cluster, number), tls)) for number in range(namenodes)
        ]
        cluster.data_url = stack.enter_context(_served(partial(_DataHandler, cluster, 9), tls))
        yield cluster
