"""h2spec, the conformance suite of HTTP/2 and HPACK, against the gRPC front. Needs Go, once."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from servery_http.rpc.server import RpcServer, server_tls

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]
HERE = Path(__file__).parent / "h2spec"
TOOL = "github.com/summerwind/h2spec/cmd/h2spec"


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The program, built into the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "servery" / "h2spec" / "h2spec"
    target.parent.mkdir(parents=True, exist_ok=True)
    # Test workers start together; one builds and the others wait.
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            if shutil.which("go") is None:
                pytest.skip("no Go to build h2spec with: the HTTP/2 front's conformance is NOT tested")
            subprocess.run(
                ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(target), TOOL],
                cwd=HERE,
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
                check=True,
            )
    return target


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> ssl.SSLContext | None:
    if request.param == "plain":
        return None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem, pkcs8, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, none))
    (tmp_path / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    return server_tls(tmp_path / "cert.pem", tmp_path / "key.pem")


async def test_front_conforms(h2spec: Path, tls: ssl.SSLContext | None, tmp_path: Path) -> None:
    # Nothing that h2spec asks for is gRPC, so the server behind is never called.
    async with RpcServer({}, tmp_path / "nobody.sock", tls=tls).running(drain_seconds=1) as server:
        flags = ["--strict", "-h", "localhost", "-p", str(server.port), "-o", "5", *(["-t", "-k"] if tls else [])]
        running = await asyncio.create_subprocess_exec(h2spec, *flags, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = await running.communicate()
    summary = said.decode().strip().splitlines()[-1]
    assert running.returncode == 0, said.decode()
    assert "0 failed" in summary
    assert "0 skipped" in summary
