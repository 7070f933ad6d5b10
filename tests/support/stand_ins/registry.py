"""A real OCI registry on loopback, with or without passwords and tokens, and hands to push with."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from ports import free_port

from stand_ins.certificates import certified

TOOL = "github.com/distribution/distribution/v3/cmd/registry"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "reader", "secret"
# bcrypt of PASSWORD, with little work
HTPASSWD = f"{USER}:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"


class Unavailable(Exception):
    """The registry is not here and cannot be built; says why."""


def registry_program(tools: Path) -> Path:
    """Return the registry's program: Debian's ``docker-registry``, or one built from the module in ``tools``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "servery" / "registry" / "registry"
    target.parent.mkdir(parents=True, exist_ok=True)
    # Test workers start together; one builds and the others wait.
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            if (found := shutil.which("docker-registry")) is not None:
                return Path(found)
            if shutil.which("go") is None:
                raise Unavailable("no docker-registry and no Go to build a registry with")
            partial = target.with_suffix(".partial")
            subprocess.run(
                ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(partial), TOOL],
                cwd=tools,
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
                check=True,
            )
            partial.rename(target)
    return target


@dataclass
class Registry:
    """A running registry. ``tokens`` are the scopes that were asked for, and by whom."""

    host: str
    authorization: str = ""
    tokens: list[tuple[str, str | None]] = field(default_factory=list)

    def blob(self, repository: str, content: bytes) -> dict[str, Any]:
        """Push a blob, and return its descriptor without a type."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        status, headers = self.ask("POST", f"{repository}/blobs/uploads/")
        assert status == 202, status
        place = headers["location"]
        url = f"{place}{'&' if '?' in place else '?'}digest={digest}"
        assert self.ask("PUT", url, content, {"content-type": "application/octet-stream"})[0] == 201
        return {"digest": digest, "size": len(content)}

    def manifest(self, repository: str, tag: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Push a manifest, and return its descriptor."""
        body = json.dumps({"schemaVersion": 2, **document}).encode()
        kind = document["mediaType"]
        assert self.ask("PUT", f"{repository}/manifests/{tag}", body, {"content-type": kind})[0] == 201
        return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(body).hexdigest()}", "size": len(body)}

    def push(
        self,
        repository: str,
        layers: Sequence[tuple[str, bytes, Mapping[str, str]]],
        *,
        tag: str = "latest",
        config: str = "application/vnd.unknown.config.v1+json",
    ) -> dict[str, Any]:
        """Push what has these layers (type, content, annotations), and return the manifest's descriptor."""
        described = [
            {"mediaType": kind, **self.blob(repository, content), **({"annotations": notes} if notes else {})}
            for kind, content, notes in layers
        ]
        document = {
            "mediaType": MANIFEST,
            "config": {"mediaType": config, **self.blob(repository, b"{}")},
            "layers": described,
        }
        return self.manifest(repository, tag, document)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str]]:
        url = path if "://" in path else f"http://{self.host}/v2/{path}"
        sent = {**(headers or {}), **({"authorization": self.authorization} if self.authorization else {})}
        request = urllib.request.Request(url, data=body, method=method, headers=sent)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, {name.lower(): value for name, value in answer.headers.items()}
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {name.lower(): value for name, value in error.headers.items()}


@contextmanager
def registry_served(program: Path, folder: Path, *, auth: str = "", certificate: bool = False) -> Iterator[Registry]:
    """Run a registry until the block ends. ``auth`` is ``htpasswd``, ``token`` or nothing."""
    host = f"127.0.0.1:{free_port()}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }
    registry = Registry(host)
    key, pem = certified(folder)
    if certificate:
        config["http"]["tls"] = {"certificate": str(pem), "key": str(folder / "key.pem")}
    with _tokens(registry, key, pem) as realm:
        if auth == "htpasswd":
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
            registry.authorization = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        elif auth == "token":
            config["auth"] = {
                "token": {"realm": realm, "service": "test", "issuer": "test", "rootcertbundle": str(pem)}
            }
            registry.authorization = "Bearer " + _token(key, pem, "*")
        (folder / "config.yml").write_text(json.dumps(config))  # which is YAML
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
            try:
                _wait(host, running, folder / "log")
                yield registry
            finally:
                running.terminate()
                running.wait()


def _wait(host: str, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    name, _, port = host.partition(":")
    while True:
        try:
            socket.create_connection((name, int(port)), timeout=1).close()
        except OSError:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return


@contextmanager
def _tokens(registry: Registry, key: rsa.RSAPrivateKey, pem: Path) -> Iterator[str]:
    """Answer for the server that gives tokens: to all who ask for ``public/…``, else to the one user."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self.give(query["scope"][0], self.headers.get("authorization"))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            assert form["grant_type"] == ["refresh_token"]
            self.give(form["scope"][0], form["refresh_token"][0])

        def give(self, scope: str, who: str | None) -> None:
            registry.tokens.append((scope, who))
            known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            repository = scope.split(":")[1]
            if not repository.startswith("public/") and who not in {f"Basic {known}", "the-identity"}:
                body, status = b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}', 401
            else:
                body, status = json.dumps({"token": _token(key, pem, repository), "expires_in": 300}).encode(), 200
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def _token(key: rsa.RSAPrivateKey, pem: Path, repository: str) -> str:
    """Return a token of the registry's kind: a JWT that the certificate's key signed."""
    der = x509.load_pem_x509_certificate(pem.read_bytes()).public_bytes(serialization.Encoding.DER)
    now = int(time.time())
    actions = ["pull", "push", "delete"]
    # The registry knows no pattern, and the hands that push say all the repositories that the tests have.
    names = ["public/model", "private/model"] if repository == "*" else [repository]
    claims = {
        "iss": "test",
        "sub": USER,
        "aud": "test",
        "exp": now + 300,
        "nbf": now - 60,
        "iat": now,
        "jti": "1",
        "access": [{"type": "repository", "name": name, "actions": actions} for name in names],
    }
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    signed = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + _base64url(signature)).decode()


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
