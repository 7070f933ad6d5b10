"""Real git servers on loopback, ``git daemon`` and ``git http-backend``, and an LFS server beside the latter."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ports import free_port

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}


@dataclass
class Repository:
    """A repository that a server serves, changed by git itself. ``folder`` holds it as ``models.git``."""

    folder: Path
    files: dict[str, bytes | Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.path))
        (self.path / "git-daemon-export-ok").touch()

    @property
    def path(self) -> Path:
        return self.folder / "models.git"

    def commit(self, files: Mapping[str, bytes | Path], branch: str = "main") -> str:
        """Make ``files`` (a path is a link's target) the whole content of a branch, and return the commit."""
        head = subprocess.run(
            ["git", f"--git-dir={self.path}", "rev-parse", "--verify", "--quiet", branch],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        lines = [f"commit refs/heads/{branch}", "committer Test <test@localhost> 1700000000 +0000", "data 0"]
        stream = "\n".join([*lines, *([f"from {head}"] if head else []), "deleteall", ""]).encode()
        for path, what in files.items():
            content, mode = (str(what).encode(), "120000") if isinstance(what, Path) else (what, "100644")
            stream += f'M {mode} inline "{path}"\ndata {len(content)}\n'.encode() + content + b"\n"
        self.run("fast-import", "--quiet", "--force", stdin=stream)
        return self.run("rev-parse", branch).strip()

    def run(self, *arguments: str, stdin: bytes | None = None) -> str:
        return self.git(f"--git-dir={self.path}", *arguments, stdin=stdin)

    @staticmethod
    def git(*arguments: str, stdin: bytes | None = None) -> str:
        ran = subprocess.run(["git", *arguments], env=ENVIRONMENT, input=stdin, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout.decode()

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content
        self.commit(self.files)

    def remove(self, path: str) -> None:
        del self.files[path]
        self.commit(self.files)


@contextmanager
def daemon_served(folder: Path) -> Iterator[str]:
    """Serve the repositories in ``folder`` by git's own protocol, and yield the URL."""
    port = free_port()
    command = ["git", "daemon", f"--base-path={folder}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"]
    # It starts the daemon as a child, which outlives it if it alone is stopped.
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) as running:
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            yield f"git://127.0.0.1:{port}"
        finally:
            os.killpg(running.pid, 15)


@dataclass
class Forge:
    """A host of repositories over HTTP, with LFS.

    Attributes:
        objects: What LFS keeps, by its SHA-256.
        password: Who has none may not read, if it is set.
        refusals: The statuses with which the next requests of these paths are answered.
        seen: The requests' methods, paths and credentials.
    """

    url: str
    folder: Path
    objects: dict[str, bytes] = field(default_factory=dict)
    user: str = "reader"
    password: str | None = None
    refusals: list[tuple[str, int]] = field(default_factory=list)
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)

    def pointer(self, content: bytes) -> bytes:
        """Give ``content`` to LFS, and return what git keeps of it."""
        oid = hashlib.sha256(content).hexdigest()
        self.objects[oid] = content
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


@contextmanager
def forge_served(folder: Path) -> Iterator[Forge]:
    """Serve the repositories in ``folder`` by HTTP until the block ends."""
    forge = Forge("", folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, forge)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        forge.url = f"http://127.0.0.1:{server.server_port}"
        yield forge
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, forge: Forge, *arguments: Any) -> None:
        self.forge = forge
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.serve(body)

    def serve(self, body: bytes) -> None:
        path, said = urlsplit(self.path).path, self.headers.get("authorization")
        self.forge.seen.append((self.command, path, said))
        known = base64.b64encode(f"{self.forge.user}:{self.forge.password}".encode()).decode()
        refusal = next((refusal for refusal in self.forge.refusals if refusal[0] in path), None)
        if refusal is not None:
            self.forge.refusals.remove(refusal)
            self.answer(refusal[1], {}, b'{"message": "not now"}')
        elif path.startswith("/store/"):
            self.stored(path.removeprefix("/store/"))
        elif self.forge.password is not None and said != f"Basic {known}":
            self.answer(401, {"www-authenticate": 'Basic realm="git"'}, b'{"message": "who are you?"}')
        elif path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(body))
        else:
            self.backend(path, body)

    def backend(self, path: str, body: bytes) -> None:
        environment = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.forge.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": urlsplit(self.path).query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        ran = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.answer(int(headers.pop("Status", "200").split()[0]), headers, content)

    def batch(self, asked: Mapping[str, Any]) -> None:
        assert asked["operation"] == "download"
        (wanted,) = asked["objects"]
        found: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] in self.forge.objects:
            header = {"authorization": "RemoteAuth once"}
            found["actions"] = {"download": {"href": f"{self.forge.url}/store/{wanted['oid']}", "header": header}}
        else:
            found["error"] = {"code": 404, "message": "Object does not exist"}
        self.answer(200, {"content-type": "application/vnd.git-lfs+json"}, json.dumps({"objects": [found]}).encode())

    def stored(self, oid: str) -> None:
        content = self.forge.objects[oid]
        assert self.headers.get("authorization") == "RemoteAuth once"
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        start = int(wanted[1]) if wanted else 0
        span = {"content-range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.answer(206 if start else 200, span, content[start:])

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return
