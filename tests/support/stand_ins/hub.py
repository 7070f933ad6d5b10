"""A stand-in of the Hugging Face hub on this machine: what its API answers to who reads, and its store of large files,
which is another host.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE_ENTRIES = 2
LARGE_BYTES = 1024

Answer = tuple[int, Mapping[str, str], bytes]
Tree = dict[str, bytes]


@dataclass
class Hub:
    """One model's repository.

    Attributes:
        commits: Files by path, of each commit; a revision's name is a key of ``revisions``.
        refusals: What is answered first, in this order, to each path with the text in it: ``resolve``.
        is_gated: Files are for those with ``token``; the list of them is for all.
        has_ranges: Whether ranges are understood.
        seen: The requests: ``hub`` or ``store``, the path, and the credentials that came along.
    """

    url: str = ""
    store_url: str = ""
    repository: str = "acme/models"
    commits: dict[str, Tree] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    token: str = "hf_of-the-test"  # no other hub knows it
    refusals: list[tuple[str, Answer]] = field(default_factory=list)
    is_gated: bool = False
    has_ranges: bool = True
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)

    def commit(self, files: Tree, revision: str = "main") -> str:
        """Make ``files`` the whole content of ``revision``, and return the commit's sum."""
        commit = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()  # as git names commits
        self.commits[commit], self.revisions[revision] = files, commit
        return commit

    def refuse(self, path: str, status: int, code: str = "", words: str = "", **headers: str) -> None:
        """Have the next request whose path has ``path`` in it answered with this."""
        self.refusals.append((path, _refusal(status, code, words, headers)))

    def refusal(self, path: str) -> Answer | None:
        found = next((refusal for refusal in self.refusals if refusal[0] in path), None)
        if found is None:
            return None
        self.refusals.remove(found)
        return found[1]

    @property
    def files(self) -> Tree:
        return self.commits.get(self.revisions.get("main", ""), {})

    def put(self, path: str, content: bytes) -> None:
        self.commit({**self.files, path: content})

    def remove(self, path: str) -> None:
        """Remove the file from the history as well, as the hub's "squash" does."""
        left = {name: content for name, content in self.files.items() if name != path}
        self.commits.clear()
        self.revisions.clear()
        self.commits["0" * 40], self.revisions["main"] = left, "0" * 40


@contextmanager
def hub_served() -> Iterator[Hub]:
    """Answer for the hub and its store until the block ends."""
    hub = Hub()
    with ExitStack() as stack:
        hub.url = stack.enter_context(_served(partial(_HubHandler, hub)))
        hub.store_url = stack.enter_context(_served(partial(_StoreHandler, hub)))
        yield hub


@contextmanager
def _served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def send(self, body: bytes) -> None:
        """Send the content or the range of it that was asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if not wanted or not self.hub.has_ranges:
            self.answer(200, {}, body)
        elif (start := int(wanted[1])) < len(body):
            self.answer(206, {"content-range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, body[start:])
        else:
            self.answer(416, {"content-range": f"bytes */{len(body)}"}, b"")

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


class _HubHandler(_Handler):
    """Says what a revision is, lists a commit, and sends small files; for large ones it names the store.

    Source: the hub's API, ``/api/models/{repository}/revision/{revision}`` and ``/api/models/{repository}/tree/{commit}``
    with ``Link`` to the next page, and ``/{repository}/resolve/{commit}/{path}``; its errors by ``X-Error-Code``.
    """

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.hub.seen.append(("hub", url.path, self.headers.get("authorization")))
        if (refusal := self.hub.refusal(url.path)) is not None:
            self.answer(*refusal)
        elif self.headers.get("authorization") not in (None, f"Bearer {self.hub.token}"):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", url.path):
            self._with_commit(found[1], unquote(found[2]), lambda commit: self._json({"id": found[1], "sha": commit}))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", url.path):
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            self._with_commit(found[1], found[2], lambda commit: self._tree(commit, query))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path):
            self._with_commit(found[1], found[2], lambda commit: self._resolve(commit, unquote(found[3])))
        else:
            self._refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def _with_commit(self, repository: str, revision: str, act: Callable[[str], None]) -> None:
        commit = self.hub.revisions.get(revision, revision)
        if repository != self.hub.repository:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif commit not in self.hub.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            act(commit)

    def _tree(self, commit: str, query: Mapping[str, str]) -> None:
        assert query["recursive"] == "true"
        files = self.hub.commits[commit]
        folders = {path.rpartition("/")[0] for path in files} - {""}
        entries = [{"type": "directory", "oid": _sum(path), "size": 0, "path": path} for path in sorted(folders)]
        entries += [_entry(path, content) for path, content in sorted(files.items())]
        start = int(query.get("cursor", "0"))
        end = start + PAGE_ENTRIES
        more = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={end}"
        self._json(entries[start:end], {"link": f'<{more}>; rel="next"'} if end < len(entries) else {})

    def _resolve(self, commit: str, path: str) -> None:
        content = self.hub.commits[commit].get(path)
        if self.hub.is_gated and self.headers.get("authorization") is None:
            self._refuse(401, "GatedRepo", f"Access to model {self.hub.repository} is restricted.")
        elif content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif len(content) < LARGE_BYTES:
            self.send(content)
        else:
            self.answer(302, {"location": f"{self.hub.store_url}/store/{commit}/{quote(path)}?signature=x"}, b"Found")

    def _json(self, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answer(200, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode())

    def _refuse(self, status: int, code: str, words: str) -> None:
        self.answer(*_refusal(status, code, words, {}))


class _StoreHandler(_Handler):
    """Sends large files to whom the hub sent here; a token is none of its business."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.hub.seen.append(("store", url.path, self.headers.get("authorization")))
        commit, _, path = unquote(url.path).removeprefix("/store/").partition("/")
        if (refusal := self.hub.refusal(url.path)) is not None:
            self.answer(*refusal)
        else:
            self.send(self.hub.commits[commit][path])


def _refusal(status: int, code: str, words: str, headers: Mapping[str, str]) -> Answer:
    """Return how the hub refuses: a code and words in headers, the words in the body too."""
    said = {"x-error-code": code, "x-error-message": words, "content-type": "application/json", **headers}
    return status, {name: value for name, value in said.items() if value}, json.dumps({"error": words}).encode()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": _sum(content)}
    if len(content) < LARGE_BYTES:
        return entry
    large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return {**entry, "oid": _sum(large["oid"]), "lfs": large}


def _sum(content: object) -> str:
    return hashlib.sha1(repr(content).encode()).hexdigest()  # as git names blobs
